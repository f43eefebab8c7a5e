package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// tokenFile is a file that is about to be replaced: whoever reads it sees the
// old content or the new one, and nothing else.
type tokenFile struct {
	path string
	tmp  *os.File
}

// prepare opens a temporary file beside path and reserves room in it, so that
// a full disk or a missing folder shows before the token exists.
func prepare(path string) (*tokenFile, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".token-*") // mode 0600
	if err != nil {
		return nil, err
	}
	f := &tokenFile{path, tmp}
	if _, err = tmp.Write(make([]byte, 4<<10)); err == nil {
		err = tmp.Sync()
	}
	if err != nil {
		f.discard()
		return nil, err
	}
	return f, nil
}

// commit writes content and puts the file in its place, durably.
func (f *tokenFile) commit(content string) error {
	if _, err := f.tmp.WriteAt([]byte(content), 0); err != nil {
		return err
	}
	if err := errors.Join(f.tmp.Truncate(int64(len(content))), f.tmp.Sync(), f.tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.tmp.Name(), f.path); err != nil {
		return err
	}
	if runtime.GOOS == "windows" { // where a folder cannot be synced
		return nil
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// discard removes the temporary file, if it is still there.
func (f *tokenFile) discard() {
	_ = f.tmp.Close()
	_ = os.Remove(f.tmp.Name())
}
