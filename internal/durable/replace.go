package durable

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// Options is how a file is replaced.
type Options struct {
	// Mode is the mode of the new file, whatever the umask and whatever the
	// mode of the old one. Zero: 0600.
	Mode fs.FileMode
	// FollowLink replaces the file that a symbolic link points to. Without it
	// a link is refused.
	FollowLink bool
}

func (o Options) mode() fs.FileMode {
	if o.Mode == 0 {
		return 0o600
	}
	return o.Mode.Perm()
}

const (
	renameTries = 5                     // how often a rename is tried
	renameWait  = 10 * time.Millisecond // how long it waits at first; then twice as long
	maxLinks    = 40                    // how many symbolic links are followed
	orphanAge   = time.Hour             // a younger temporary file may be in use
)

// Replace makes content the content of the file at path. Whoever reads the
// file meanwhile, or after a crash at any time, finds the old content or the
// new; when Replace has returned nil, the new. After an error the old file is
// as it was, unless the error came from making the rename durable: then it is
// the new one, until the power fails. See [Target] for what is refused.
//
// ctx ends no more than the wait for a rename that the system refuses.
func Replace(ctx context.Context, fsys FS, path string, content []byte, o Options) error {
	const op = "replace"
	path, err := target(op, fsys, path, o.FollowLink)
	if err != nil {
		return err
	}
	temp, err := writeTemp(op, fsys, path, content, o.mode())
	if err != nil {
		return err
	}
	if err := Rename(ctx, fsys, temp, path); err != nil {
		_ = fsys.Remove(temp) // Sweep does it later
		return fail(op, path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return &Error{Op: op, Path: path, Reason: "was replaced, but may be lost in a power cut: " + reasonOf(err), Err: err}
	}
	return nil
}

// Check returns the error that [Replace] would return for a content of size
// bytes, as far as that can be known without replacing anything: it writes a
// temporary file and removes it.
func Check(fsys FS, path string, size int, o Options) error {
	const op = "check"
	path, err := target(op, fsys, path, o.FollowLink)
	if err != nil {
		return err
	}
	temp, err := writeTemp(op, fsys, path, make([]byte, size), o.mode())
	if err != nil {
		return err
	}
	return fail(op, path, fsys.Remove(temp))
}

// Target checks that a file may be replaced safely, and returns its path with
// links resolved. The directory must exist, must belong to us or to root, and
// must not be writable by everybody. The file need not exist; if it does, it
// must be a regular file of ours or root's, and not a symbolic link unless
// followLink allows that.
func Target(fsys FS, path string, followLink bool) (string, error) {
	return target("check", fsys, path, followLink)
}

func target(op string, fsys FS, path string, followLink bool) (string, error) {
	if followLink {
		var err error
		if path, err = resolve(op, fsys, path); err != nil {
			return "", err
		}
	}
	dir, err := resolve(op, fsys, filepath.Dir(path))
	if err != nil {
		return "", err
	}
	info, err := fsys.Lstat(dir)
	if err != nil {
		return "", fail(op, dir, err)
	}
	if reason := dirProblem(info); reason != "" {
		return "", refuse(op, dir, reason)
	}
	path = filepath.Join(dir, filepath.Base(path))
	return path, checkFile(op, fsys, path)
}

// checkFile refuses a file that exists and must not be replaced.
func checkFile(op string, fsys FS, path string) error {
	info, err := fsys.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fail(op, path, err)
	}
	if reason := fileProblem(info); reason != "" {
		return refuse(op, path, reason)
	}
	return nil
}

// resolve follows the links that the last element of path may be.
func resolve(op string, fsys FS, path string) (string, error) {
	for range maxLinks {
		info, err := fsys.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		to := ""
		if err == nil {
			to, err = fsys.Readlink(path)
		}
		if err != nil {
			return "", fail(op, path, err)
		}
		if !filepath.IsAbs(to) {
			// Not Join: cleaning "a/../b" is wrong where a is a link.
			to = filepath.Dir(path) + string(filepath.Separator) + to
		}
		path = to
	}
	return "", refuse(op, path, "too many symbolic links")
}

// writeTemp writes content to a new file beside path, down to the disk, and
// reads it back.
func writeTemp(op string, fsys FS, path string, content []byte, mode fs.FileMode) (_ string, err error) {
	dir, base := filepath.Split(path)
	f, temp, err := createTemp(fsys, dir, base)
	if err != nil {
		return "", fail(op, path, err)
	}
	defer func() {
		if err != nil {
			_ = fsys.Remove(temp) // Sweep does it later
			err = fail(op, path, err)
		}
	}()
	err = func() error {
		defer f.Close()
		if err := f.Chmod(mode); err != nil {
			return err
		}
		if _, err := f.Write(content); err != nil {
			return err
		}
		return f.Sync()
	}()
	if err != nil {
		return "", err
	}
	back, err := fsys.Open(temp)
	if err != nil {
		return "", err
	}
	defer back.Close()
	got, err := io.ReadAll(io.LimitReader(back, int64(len(content))+1))
	if err != nil {
		return "", err
	}
	if !bytes.Equal(got, content) {
		return "", &Error{Op: op, Path: path, Reason: "what was written could not be read back", Err: io.ErrShortWrite}
	}
	return temp, nil
}

// Around the random part of the name of a temporary file.
const (
	tempMiddle = ".keywright-"
	tempSuffix = ".tmp"
	tempRandom = 8 // bytes
)

func createTemp(fsys FS, dir, base string) (File, string, error) {
	var random [tempRandom]byte
	rand.Read(random[:]) // never fails, and never meets itself
	name := filepath.Join(dir, "."+base+tempMiddle+hex.EncodeToString(random[:])+tempSuffix)
	f, err := fsys.Create(name)
	return f, name, err
}

// Rename puts temp in the place of path. Elsewhere than on Unix it is refused
// while somebody reads the file, so it is tried again for a while.
func Rename(ctx context.Context, fsys FS, temp, path string) error {
	wait := renameWait
	for try := 1; ; try++ {
		// A link that was planted meanwhile would not be followed, but somebody
		// is at work here who should not be.
		if err := checkFile("replace", fsys, path); err != nil {
			return err
		}
		err := fsys.Rename(temp, path)
		if err == nil || !passing(err) {
			return err
		}
		if try == renameTries {
			return fmt.Errorf("rename refused %d times: %w", try, err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		wait *= 2
	}
}

// Read returns the content of a regular file, which may not be longer than
// limit, and what the file system says about it. It follows no link.
func Read(fsys FS, path string, limit int) ([]byte, fs.FileInfo, error) {
	const op = "read"
	f, err := fsys.Open(path)
	if err != nil {
		return nil, nil, fail(op, path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fail(op, path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, refuse(op, path, "is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, nil, fail(op, path, err)
	}
	if len(b) > limit {
		return nil, nil, refuse(op, path, fmt.Sprintf("is larger than %d bytes", limit))
	}
	return b, info, nil
}

// Sweep removes the temporary files that a [Replace] of the file base in dir
// left behind because it was killed: those of its own naming that are ours and
// older than an hour.
func Sweep(fsys FS, dir, base string, now time.Time) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return fail("sweep", dir, err)
	}
	var errs []error
	for _, e := range entries {
		if !isTemp(e.Name(), base) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		info, err := fsys.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || fileProblem(info) != "" || now.Sub(info.ModTime()) <= orphanAge {
			continue
		}
		if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fail("sweep", name, err))
		}
	}
	return errors.Join(errs...)
}

// isTemp reports whether name is one that createTemp gives for base.
func isTemp(name, base string) bool {
	random, ok := strings.CutPrefix(name, "."+base+tempMiddle)
	if !ok {
		return false
	}
	random, ok = strings.CutSuffix(random, tempSuffix)
	b, err := hex.DecodeString(random)
	return ok && err == nil && len(b) == tempRandom
}
