package jobfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/keywright/keywright/internal/durable"
)

// read returns what is in the file at path, and whether path is a symbolic
// link. The file names commands that get tokens: nobody else may change it.
func read(path string) (b []byte, link bool, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, false, fmt.Errorf("jobfile: %w", err)
	}
	link = info.Mode()&fs.ModeSymlink != 0
	if !stays(path) {
		return nil, link, broken(path, "is not a file in a directory that stays; save it in one")
	}
	if info, err = os.Stat(path); err != nil {
		return nil, link, fmt.Errorf("jobfile: %w", err)
	}
	if !info.Mode().IsRegular() { // a pipe could take for ever
		return nil, link, broken(path, "is not a regular file")
	}
	if reason := openToOthers(path, info); reason != "" {
		return nil, link, broken(path, reason)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, link, fmt.Errorf("jobfile: %w", err)
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, maxSize+1)); err != nil {
		return nil, link, fmt.Errorf("jobfile: %w", err)
	}
	return b, link, nil
}

// stays reports whether the directory of a file is there after the process:
// not that of /dev/stdin, /dev/fd/3 and /proc/self/fd/3.
func stays(path string) bool {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return true
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	in := func(top string) bool { return strings.HasPrefix(dir+"/", top) }
	return !in("/proc/") && (!in("/dev/") || in("/dev/shm/"))
}

// openToOthers names why somebody else may have written a file; it is "" if
// nobody can.
func openToOthers(path string, info fs.FileInfo) string {
	if runtime.GOOS == "windows" { // modes and owners say nothing
		return ""
	}
	if info.Mode().Perm()&0o002 != 0 {
		return "everybody may write to it; run: chmod o-w"
	}
	if reason := durable.PrivacyProblem(readable{info}); reason != "" {
		return reason
	}
	real, err := filepath.EvalSymlinks(path) // not the link's: that of a ConfigMap is open to all, and mounted read-only
	if err != nil {
		return ""
	}
	dir := filepath.Dir(real)
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return "everybody may write to its directory; run: chmod o-w " + dir
	}
	return ""
}

// readable is a file that others may read: only its owner matters.
type readable struct{ fs.FileInfo }

// Mode is that of a private file.
func (readable) Mode() fs.FileMode { return 0o600 }
