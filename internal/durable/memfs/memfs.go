// Package memfs is a file system in memory for tests: it can kill a process
// between any two operations, and cut the power.
//
// A [FS] is a machine's disk. Each [Process] on it has its own locks and its
// own hook, and can be killed. Nothing is durable until it is synced: see
// [FS.CrashStates].
package memfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keywright/keywright/internal/durable"
)

// ErrKilled is returned by every operation of a process that was killed.
var ErrKilled = errors.New("memfs: the process was killed")

// maxLinks is how many symbolic links are followed in a path.
const maxLinks = 40

// FS is a disk. It is a process on it too, for tests that need but one. It is
// safe for concurrent use.
type FS struct {
	*process
	mu    sync.Mutex
	root  *node
	locks map[*node]*lock
}

// process is embedded under a name of its own, because FS has a method called
// Process.
type process = Process

// lock is who has a lock file locked.
type lock struct {
	holder *Process
	free   chan struct{} // closed when it is given up
}

// New returns a disk with nothing but the root directory, "/".
func New() *FS {
	f := &FS{root: newDir(0o755), locks: make(map[*node]*lock)}
	f.process = f.Process()
	return f
}

// Process returns a new process on the disk.
func (f *FS) Process() *Process { return &Process{fs: f, dead: make(chan struct{})} }

// Process is a [durable.FS] as one process sees it.
type Process struct {
	// Hook, if not nil, is called before and after each operation that changes
	// something, and may call Kill. op is "create", "write", "sync", "chmod",
	// "mkdir", "rename" (name is the new one), "link" (likewise), "remove",
	// "syncdir" or "lock". The operation returns what Hook returns: before it
	// happens and instead, or, if after is true, when it has happened. It must
	// be set before the process does anything, and be safe for concurrent use.
	Hook func(op, name string, after bool) error

	fs   *FS
	once sync.Once
	dead chan struct{}
}

// Torn is what a hook returns before a write of which only so many bytes shall
// arrive, as on a disk that fills up.
type Torn int

// Error returns one line.
func (Torn) Error() string { return "memfs: not all was written" }

// Unwrap returns ENOSPC.
func (Torn) Unwrap() error { return syscall.ENOSPC }

// Kill ends the process: its locks are free, and whatever it does from now on
// fails with [ErrKilled].
func (p *Process) Kill() {
	p.once.Do(func() { close(p.dead) })
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	for n, l := range p.fs.locks {
		if l.holder == p {
			p.fs.release(n)
		}
	}
}

// alive returns ErrKilled if the process was killed.
func (p *Process) alive() error {
	select {
	case <-p.dead:
		return ErrKilled
	default:
		return nil
	}
}

func (p *Process) hook(op, name string, after bool) error {
	if err := p.alive(); err != nil {
		return err
	}
	if p.Hook == nil {
		return nil
	}
	err := p.Hook(op, name, after)
	return cmpOr(p.alive(), err)
}

func cmpOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// change does something that the hook is told about.
func (p *Process) change(op, name string, do func() error) error {
	if err := p.hook(op, name, false); err != nil {
		return wrap(op, name, err)
	}
	p.fs.mu.Lock()
	err := p.alive() // killed while this waited
	if err == nil {
		err = do()
	}
	p.fs.mu.Unlock()
	if err == nil {
		err = p.hook(op, name, true)
	}
	return wrap(op, name, err)
}

// look does something that changes nothing.
func (p *Process) look(op, name string, do func() error) error {
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	err := p.alive()
	if err == nil {
		err = do()
	}
	return wrap(op, name, err)
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Create implements [durable.FS].
func (p *Process) Create(name string) (durable.File, error) {
	var n *node
	err := p.change("create", name, func() (err error) {
		n, err = p.fs.create(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &file{p: p, n: n, name: name, write: true}, nil
}

// Open implements [durable.FS].
func (p *Process) Open(name string) (durable.File, error) { return p.open(name, false) }

// OpenWrite implements [durable.FS].
func (p *Process) OpenWrite(name string) (durable.File, error) { return p.open(name, true) }

func (p *Process) open(name string, write bool) (durable.File, error) {
	var n *node
	err := p.look("open", name, func() (err error) {
		if n, err = p.fs.find(name); err != nil {
			return err
		}
		switch {
		case n.mode&fs.ModeSymlink != 0:
			return syscall.ELOOP
		case n.mode.IsDir() && write:
			return syscall.EISDIR
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &file{p: p, n: n, name: name, write: write}, nil
}

// Lstat implements [durable.FS].
func (p *Process) Lstat(name string) (info fs.FileInfo, err error) {
	err = p.look("lstat", name, func() error {
		n, err := p.fs.find(name)
		if err == nil {
			info = n.info(filepath.Base(name))
		}
		return err
	})
	return info, err
}

// Readlink implements [durable.FS].
func (p *Process) Readlink(name string) (to string, err error) {
	err = p.look("readlink", name, func() error {
		n, err := p.fs.find(name)
		if err == nil && n.mode&fs.ModeSymlink == 0 {
			err = syscall.EINVAL
		}
		if err == nil {
			to = string(n.data)
		}
		return err
	})
	return to, err
}

// Mkdir implements [durable.FS].
func (p *Process) Mkdir(name string) error {
	return p.change("mkdir", name, func() error {
		dir, base, err := p.fs.parent(name)
		if err != nil {
			return err
		}
		switch n := dir.entries[base]; {
		case n == nil:
			dir.apply(change{base: newDir(0o700)})
			return nil
		case n.mode.IsDir():
			return nil
		}
		return fs.ErrExist
	})
}

// ReadDir implements [durable.FS].
func (p *Process) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = p.look("readdir", name, func() error {
		dir, err := p.fs.dir(name)
		if err != nil {
			return err
		}
		for _, base := range slices.Sorted(maps.Keys(dir.entries)) {
			list = append(list, fs.FileInfoToDirEntry(dir.entries[base].info(base)))
		}
		return nil
	})
	return list, err
}

// Rename implements [durable.FS].
func (p *Process) Rename(oldName, newName string) error {
	return p.change("rename", newName, func() error {
		from, oldBase, err := p.fs.parent(oldName)
		if err != nil {
			return err
		}
		to, newBase, err := p.fs.parent(newName)
		if err != nil {
			return err
		}
		n, there := from.entries[oldBase], to.entries[newBase]
		switch {
		case n == nil:
			return fs.ErrNotExist
		case n == there:
			return nil // two names of one file: POSIX leaves both
		case there != nil && there.mode.IsDir():
			return syscall.EISDIR
		case from == to:
			from.apply(change{newBase: n, oldBase: nil})
		default:
			to.apply(change{newBase: n})
			from.apply(change{oldBase: nil})
		}
		return nil
	})
}

// Link implements [durable.FS].
func (p *Process) Link(oldName, newName string) error {
	return p.change("link", newName, func() error {
		n, err := p.fs.find(oldName)
		if err != nil {
			return err
		}
		dir, base, err := p.fs.parent(newName)
		switch {
		case err != nil:
			return err
		case n.mode.IsDir():
			return fs.ErrPermission
		case dir.entries[base] != nil:
			return fs.ErrExist
		}
		dir.apply(change{base: n})
		return nil
	})
}

// Remove implements [durable.FS].
func (p *Process) Remove(name string) error {
	return p.change("remove", name, func() error {
		dir, base, err := p.fs.parent(name)
		if err != nil {
			return err
		}
		switch n := dir.entries[base]; {
		case n == nil:
			return fs.ErrNotExist
		case len(n.entries) > 0:
			return syscall.ENOTEMPTY
		}
		dir.apply(change{base: nil})
		return nil
	})
}

// SyncDir implements [durable.FS].
func (p *Process) SyncDir(name string) error {
	return p.change("syncdir", name, func() error {
		dir, err := p.fs.dir(name)
		if err != nil {
			return err
		}
		dir.pending, dir.before = nil, nil
		return nil
	})
}

// Lock implements [durable.FS].
func (p *Process) Lock(ctx context.Context, name string, wait bool) (unlock func() error, err error) {
	if err := p.hook("lock", name, false); err != nil {
		return nil, wrap("lock", name, err)
	}
	for {
		n, busy, err := p.tryLock(ctx, name)
		switch {
		case err != nil:
			return nil, wrap("lock", name, err)
		case busy == nil:
			unlock = sync.OnceValue(func() error { return p.unlock(n) })
			if err := p.hook("lock", name, true); err != nil {
				return nil, wrap("lock", name, errors.Join(err, unlock()))
			}
			return unlock, nil
		case !wait:
			return nil, durable.ErrLocked
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.dead:
			return nil, ErrKilled
		case <-busy:
		}
	}
}

// tryLock takes the lock, or returns a channel that is closed when it is free.
func (p *Process) tryLock(ctx context.Context, name string) (*node, <-chan struct{}, error) {
	f := p.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmpOr(p.alive(), ctx.Err()); err != nil {
		return nil, nil, err
	}
	n, err := f.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		n, err = f.create(name)
	}
	switch {
	case err != nil:
		return nil, nil, err
	case n.mode&fs.ModeSymlink != 0:
		return nil, nil, syscall.ELOOP
	case !n.mode.IsRegular():
		return nil, nil, fs.ErrInvalid
	}
	if l := f.locks[n]; l != nil {
		return n, l.free, nil
	}
	f.locks[n] = &lock{p, make(chan struct{})}
	return n, nil, nil
}

func (p *Process) unlock(n *node) error {
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	if err := p.alive(); err != nil {
		return err
	}
	p.fs.release(n)
	return nil
}

// release frees a lock. The caller holds mu.
func (f *FS) release(n *node) {
	close(f.locks[n].free)
	delete(f.locks, n)
}

// file is an open file.
type file struct {
	p      *Process
	n      *node
	name   string
	write  bool
	offset int
	closed bool
}

func (f *file) Read(b []byte) (n int, err error) {
	err = f.p.look("read", f.name, func() error {
		switch {
		case f.closed:
			return fs.ErrClosed
		case f.n.mode.IsDir():
			return syscall.EISDIR
		}
		n = copy(b, f.n.data[min(f.offset, len(f.n.data)):])
		f.offset += n
		return nil
	})
	if err == nil && n == 0 && len(b) > 0 {
		err = io.EOF // not wrapped: readers compare
	}
	return n, err
}

func (f *file) Write(b []byte) (n int, err error) {
	err = f.p.hook("write", f.name, false)
	if torn := Torn(0); errors.As(err, &torn) {
		b = b[:min(int(torn), len(b))]
	} else if err != nil {
		return 0, wrap("write", f.name, err)
	}
	n, writeErr := f.put(b)
	if err = cmpOr(writeErr, err); err == nil {
		err = f.p.hook("write", f.name, true)
	}
	return n, wrap("write", f.name, err)
}

func (f *file) put(b []byte) (int, error) {
	f.p.fs.mu.Lock()
	defer f.p.fs.mu.Unlock()
	switch err := f.p.alive(); {
	case err != nil:
		return 0, err
	case f.closed:
		return 0, fs.ErrClosed
	case !f.write:
		return 0, syscall.EBADF
	}
	end := f.offset + len(b)
	data := make([]byte, max(len(f.n.data), end))
	copy(data, f.n.data)
	copy(data[f.offset:], b)
	f.n.data, f.n.modified, f.offset = data, time.Now(), end
	return len(b), nil
}

func (f *file) Sync() error {
	return f.p.change("sync", f.name, func() error {
		if f.closed {
			return fs.ErrClosed
		}
		f.n.synced, f.n.syncedMode = f.n.data, f.n.mode
		return nil
	})
}

func (f *file) Chmod(mode fs.FileMode) error {
	return f.p.change("chmod", f.name, func() error {
		if f.closed {
			return fs.ErrClosed
		}
		f.n.mode = f.n.mode.Type() | mode.Perm()
		return nil
	})
}

func (f *file) Stat() (info fs.FileInfo, err error) {
	err = f.p.look("stat", f.name, func() error {
		if f.closed {
			return fs.ErrClosed
		}
		info = f.n.info(filepath.Base(f.name))
		return nil
	})
	return info, err
}

func (f *file) Close() error {
	return f.p.look("close", f.name, func() error {
		if f.closed {
			return fs.ErrClosed
		}
		f.closed = true
		return nil
	})
}

// The rest walks the tree. Its callers hold mu.

// create makes an empty file that must not exist.
func (f *FS) create(name string) (*node, error) {
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, err
	}
	if dir.entries[base] != nil {
		return nil, fs.ErrExist
	}
	n := &node{mode: 0o600, syncedMode: 0o600, modified: time.Now(), uid: us}
	dir.apply(change{base: n})
	return n, nil
}

// find returns what a name stands for. It follows links but the last.
func (f *FS) find(name string) (*node, error) {
	dir, base, err := f.parent(name)
	switch {
	case err != nil:
		return nil, err
	case base == "":
		return dir, nil
	case dir.entries[base] == nil:
		return nil, fs.ErrNotExist
	}
	return dir.entries[base], nil
}

// dir returns a directory. It follows links.
func (f *FS) dir(name string) (*node, error) { return f.walk(split(name)) }

// parent returns the directory that a name is in, and the name there; for the
// root, that and "".
func (f *FS) parent(name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return f.root, "", nil
	}
	last := len(parts) - 1
	dir, err := f.walk(parts[:last])
	return dir, parts[last], err
}

func (f *FS) walk(parts []string) (*node, error) {
	n, at := f.root, []string(nil) // at is the path of n, free of links
	for links := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		next := n.entries[part]
		switch {
		case part == "..":
			at = at[:max(len(at)-1, 0)]
			n = f.root
			for _, a := range at {
				n = n.entries[a]
			}
			continue
		case next == nil:
			return nil, fs.ErrNotExist
		case next.mode.IsDir():
			n, at = next, append(at, part)
			continue
		case next.mode&fs.ModeSymlink == 0:
			return nil, syscall.ENOTDIR
		}
		if links++; links > maxLinks {
			return nil, syscall.ELOOP
		}
		to := string(next.data)
		if !filepath.IsAbs(to) {
			parts = append(split(to), parts...)
			continue
		}
		n, at, parts = f.root, nil, append(split(to), parts...)
	}
	return n, nil
}

// split returns the elements of a path; relative paths start at the root.
func split(name string) []string {
	return slices.DeleteFunc(strings.Split(filepath.ToSlash(name), "/"), func(s string) bool { return s == "" || s == "." })
}
