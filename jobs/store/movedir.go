package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation"
)

// Files of the journal of [rotation.NewDirJournal].
const (
	sealKey   = "sealing.key" // beside the jobs' directories
	auditFile = "audit.jsonl"
)

// jobFiles are those of which a job's directory has one at least: the lock is
// there from the first session on, but may be left out of a backup.
var jobFiles = [...]string{"lock", "state", "state.prev", "state.next", "state.spare", "state.reserve", auditFile}

// maxLine is more than any line of an audit trail has.
const maxLine = 1 << 20

// directory is a source: a journal of which all jobs are locked.
type directory struct {
	fsys     durable.FS
	path     string
	sessions map[string]rotation.Session // by job
}

// openDir locks all jobs of a directory.
func openDir(ctx context.Context, path string) (_ *directory, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	d := &directory{fsys: durable.FromContext(ctx), path: path, sessions: make(map[string]rotation.Session)}
	// Begin would make what is not there.
	if err := durable.CheckPrivate(d.fsys, path); errors.Is(err, durable.ErrRefused) {
		return nil, fmt.Errorf("%w: %w", rotation.ErrJournal, err)
	} else if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	entries, err := d.fsys.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	j := rotation.NewDirJournal(path)
	for _, entry := range entries {
		job := entry.Name()
		if !entry.IsDir() || !validJob.MatchString(job) || !d.isJob(filepath.Join(path, job)) {
			continue
		}
		session, err := j.Begin(ctx, job)
		switch {
		case errors.Is(err, rotation.ErrBusy):
			err = &BusyError{Job: job}
		case errors.Is(err, durable.ErrRefused):
			err = fmt.Errorf("%w: %w", rotation.ErrJournal, err)
		}
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
		d.sessions[job] = session
	}
	return d, nil
}

// isJob reports whether a directory is that of a job. What is there instead of
// a file is for Begin to refuse.
func (d *directory) isJob(path string) bool {
	for _, name := range jobFiles {
		if _, err := d.fsys.Lstat(filepath.Join(path, name)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

func (d *directory) exists(path string) bool {
	info, err := d.fsys.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

func (d *directory) close() error {
	var errs []error
	for job, session := range d.sessions {
		errs = append(errs, session.Close())
		delete(d.sessions, job)
	}
	return errors.Join(errs...)
}

// retire gives the directory another name, which it returns.
func (d *directory) retire(ctx context.Context) (string, error) {
	if runtime.GOOS == "windows" { // where what is open cannot be renamed
		if err := d.close(); err != nil {
			return "", err
		}
	}
	name := d.path + ".moved"
	for n := 2; ; n++ {
		_, err := d.fsys.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return "", err
		}
		name = d.path + ".moved" + strconv.Itoa(n)
	}
	if err := durable.Rename(ctx, d.fsys, d.path, name); err != nil {
		return "", err
	}
	// A parent that may not be read was not made by us.
	if err := d.fsys.SyncDir(filepath.Dir(d.path)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return "", err
	}
	return name, nil
}

func (*directory) identity(context.Context) (string, error) { return "", nil }

func (d *directory) jobs(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(d.sessions)), nil
}

func (d *directory) records(ctx context.Context, job string) (records, error) {
	data, damaged, err := d.sessions[job].Load(ctx)
	if err != nil || data == nil {
		return records{}, err
	}
	whole := record{seq: 1, data: data, sum: checksum(job, 1, data)}
	if damaged {
		// There was a later one, and it must not be forgotten that there was.
		return records{latest: record{seq: 2, data: []byte{0}}, before: whole}, nil
	}
	return records{latest: whole}, nil
}

func (d *directory) lines(_ context.Context, job string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := d.fsys.Open(filepath.Join(d.path, job, auditFile))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(nil, fmt.Errorf("store: %w", err))
			return
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			yield(nil, errors.Join(err, fmt.Errorf("%w: the audit trail is not a regular file", rotation.ErrJournal)))
			return
		}
		in := bufio.NewScanner(f)
		in.Buffer(nil, maxLine)
		in.Split(wholeLines)
		for in.Scan() {
			if !yield(bytes.Clone(in.Bytes()), nil) {
				return
			}
		}
		switch err := in.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(nil, fmt.Errorf("%w: the audit trail has a line that is too long", rotation.ErrJournal))
		case err != nil:
			yield(nil, fmt.Errorf("store: %w", err))
		}
	}
}

// wholeLines is bufio.ScanLines, but for a carriage return, which stays.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if line, _, ended := bytes.Cut(data, []byte{'\n'}); ended {
		return len(line) + 1, line, nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// rest implements source: a directory has nothing else.
func (*directory) rest(context.Context, *mover) error { return nil }
