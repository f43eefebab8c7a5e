package memfs

import (
	"bytes"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// us owns what processes make.
var us = os.Geteuid()

// node is a file, a directory or a symbolic link.
type node struct {
	mode     fs.FileMode
	uid      int
	modified time.Time
	data     []byte // of a file, or what a link points to; never written in place

	synced     []byte // what a power cut leaves of data
	syncedMode fs.FileMode

	entries map[string]*node // of a directory
	pending []change         // what was done to entries since the directory was synced
	before  map[string]*node // entries without pending, if there is any
}

// change is what one operation does to a directory: for each name what it
// stands for then, nil if it is removed.
type change = map[string]*node

func newDir(mode fs.FileMode) *node {
	return &node{mode: fs.ModeDir | mode, uid: us, modified: time.Now(), entries: make(map[string]*node)}
}

// apply changes a directory.
func (n *node) apply(c change) {
	if len(n.pending) == 0 {
		n.before = maps.Clone(n.entries)
	}
	n.pending = append(n.pending, c)
	n.modified = time.Now()
	update(n.entries, c)
}

func update(entries map[string]*node, c change) {
	for name, n := range c {
		if n == nil {
			delete(entries, name)
		} else {
			entries[name] = n
		}
	}
}

// persisted returns the entries of a directory of whose pending changes k
// reached the disk.
func (n *node) persisted(k int) map[string]*node {
	if len(n.pending) == 0 {
		return n.entries
	}
	entries := maps.Clone(n.before)
	for _, c := range n.pending[:k] {
		update(entries, c)
	}
	return entries
}

// contents returns what a power cut may leave in a file: what was synced; what
// of it was not written over; half of what was written since; its length but
// zeros; all of it.
func (n *node) contents() [][]byte {
	if bytes.Equal(n.data, n.synced) {
		return [][]byte{n.data}
	}
	common := 0
	for common < min(len(n.data), len(n.synced)) && n.data[common] == n.synced[common] {
		common++
	}
	zeros := make([]byte, len(n.data))
	copy(zeros, n.data[:common])
	var out [][]byte
	for _, b := range [][]byte{n.synced, n.data[:common], n.data[:(common+len(n.data))/2], zeros, n.data} {
		if !slices.ContainsFunc(out, func(o []byte) bool { return bytes.Equal(o, b) }) {
			out = append(out, b)
		}
	}
	return out
}

// Bounds of what CrashStates tries out.
const (
	maxTrees    = 64 // states of the directories
	maxContents = 32 // states of the files for each of them
)

// CrashStates returns what the disk may be after a power cut now. Of the
// changes to each directory since it was synced, the first few persist,
// however many that are. Of a file that was not synced since it was written,
// what is left is the content that was synced, that as far as it was not
// written over, half of what was written, zeros, or all.
//
// The worlds have no locks and no processes. If there are very many, the two
// extremes and a random sample, the same each time, stand for them.
func (f *FS) CrashStates() iter.Seq[*FS] {
	return func(yield func(*FS) bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		order := f.root.dirs(nil)
		sizes := make([]int, len(order))
		for i, d := range order {
			sizes[i] = len(d.pending) + 1
		}
		for choice := range product(sizes, maxTrees) {
			kept := make(map[*node]int)
			for i, d := range order {
				kept[d] = choice[i]
			}
			for world := range f.root.worlds(kept) {
				if !yield(world) {
					return
				}
			}
		}
	}
}

// dirs adds to list all directories that a power cut may leave.
func (n *node) dirs(list []*node) []*node {
	if slices.Contains(list, n) {
		return list
	}
	list = append(list, n)
	for _, entries := range append([]change{n.entries, n.before}, n.pending...) {
		for _, e := range sorted(entries) {
			if e != nil && e.mode.IsDir() {
				list = e.dirs(list)
			}
		}
	}
	return list
}

// sorted yields entries by name: a sample must be the same each time.
func sorted(entries map[string]*node) iter.Seq2[string, *node] {
	return func(yield func(string, *node) bool) {
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			if !yield(name, entries[name]) {
				return
			}
		}
	}
}

// worlds returns the disks with the given number of changes of each directory
// and all contents of the files there.
func (n *node) worlds(kept map[*node]int) iter.Seq[*FS] {
	return func(yield func(*FS) bool) {
		order := n.files(kept, nil)
		sizes := make([]int, len(order))
		for i, file := range order {
			sizes[i] = len(file.contents())
		}
		for choice := range product(sizes, maxContents) {
			copies := make(map[*node]*node)
			for i, file := range order {
				copies[file] = file.crashed(choice[i])
			}
			world := New()
			world.root = n.copy(kept, copies)
			if !yield(world) {
				return
			}
		}
	}
}

// files adds to list the files that are left with the given number of changes
// of each directory.
func (n *node) files(kept map[*node]int, list []*node) []*node {
	for _, e := range sorted(n.persisted(kept[n])) {
		if e.mode.IsDir() {
			list = e.files(kept, list)
		} else if !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list
}

// crashed returns a file with one of its contents, and the mode that goes with
// it.
func (n *node) crashed(choice int) *node {
	contents := n.contents()
	c := &node{mode: n.mode, uid: n.uid, modified: n.modified, data: contents[choice]}
	if choice == 0 && len(contents) > 1 {
		c.mode = n.syncedMode
	}
	c.synced, c.syncedMode = c.data, c.mode
	return c
}

// copy returns a directory as a power cut leaves it.
func (n *node) copy(kept map[*node]int, copies map[*node]*node) *node {
	c := &node{mode: n.mode, uid: n.uid, modified: n.modified, entries: make(map[string]*node)}
	for name, e := range n.persisted(kept[n]) {
		if e.mode.IsDir() {
			c.entries[name] = e.copy(kept, copies)
		} else {
			c.entries[name] = copies[e]
		}
	}
	return c
}

// product returns all ways to choose one of sizes[i] things for each i; if
// they are more than limit, the first, the last, and a sample.
func product(sizes []int, limit int) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		total := 1
		for _, s := range sizes {
			if total *= s; total > limit {
				break
			}
		}
		choice := make([]int, len(sizes))
		if total <= limit {
			for {
				if !yield(choice) {
					return
				}
				i := 0
				for ; i < len(sizes); i++ {
					if choice[i]++; choice[i] < sizes[i] {
						break
					}
					choice[i] = 0
				}
				if i == len(sizes) {
					return
				}
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		for k := range limit {
			for i, s := range sizes {
				switch k {
				case 0:
					choice[i] = 0
				case 1:
					choice[i] = s - 1
				default:
					choice[i] = random.IntN(s)
				}
			}
			if !yield(choice) {
				return
			}
		}
	}
}

// info describes a node under a name.
func (n *node) info(name string) fs.FileInfo {
	return info{name, int64(len(n.data)), n.mode, n.modified, owner(n.uid)}
}

type info struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
	owner    owner
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.modified }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return i.owner }

// owner is what durable looks for in the Sys of a FileInfo.
type owner int

// Owner returns the user id.
func (o owner) Owner() int { return int(o) }

// The rest is for tests to set a scene and to look at the result: no hook is
// called, and all that is made is durable. Errors panic.

// MkdirAll makes a directory with mode 0700 and those above it.
func (f *FS) MkdirAll(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.root
	for _, part := range split(name) {
		if n.entries[part] == nil {
			n.put(part, newDir(0o700))
		}
		n = n.entries[part]
	}
}

// WriteFile makes or replaces a file.
func (f *FS) WriteFile(name string, content []byte, mode fs.FileMode) {
	content = bytes.Clone(content)
	f.put(name, &node{mode: mode, uid: us, modified: time.Now(), data: content, synced: content, syncedMode: mode})
}

// Symlink makes or replaces name by a symbolic link.
func (f *FS) Symlink(to, name string) {
	f.put(name, &node{mode: fs.ModeSymlink | 0o777, uid: us, modified: time.Now(), data: []byte(to), synced: []byte(to)})
}

// ReadFile returns the content of a file, and whether there is one.
func (f *FS) ReadFile(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil || !n.mode.IsRegular() {
		return nil, false
	}
	return bytes.Clone(n.data), true
}

// Names returns the paths of all that is below a directory but directories,
// sorted.
func (f *FS) Names(dir string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.dir(dir)
	if err != nil {
		return nil
	}
	var out []string
	var visit func(string, *node)
	visit = func(path string, n *node) {
		for name, e := range n.entries {
			if at := filepath.Join(path, name); e.mode.IsDir() {
				visit(at, e)
			} else {
				out = append(out, at)
			}
		}
	}
	visit(dir, n)
	slices.Sort(out)
	return out
}

// Chmod changes the mode of a file or directory.
func (f *FS) Chmod(name string, mode fs.FileMode) {
	f.set(name, func(n *node) {
		n.mode = n.mode.Type() | mode.Perm()
		n.syncedMode = n.mode
	})
}

// Chown changes the owner of a file or directory.
func (f *FS) Chown(name string, uid int) { f.set(name, func(n *node) { n.uid = uid }) }

// Chtimes changes when a file or directory was modified.
func (f *FS) Chtimes(name string, modified time.Time) {
	f.set(name, func(n *node) { n.modified = modified })
}

func (f *FS) set(name string, do func(*node)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		panic("memfs: " + name + ": " + err.Error())
	}
	do(n)
}

func (f *FS) put(name string, n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		panic("memfs: " + name + ": " + err.Error())
	}
	dir.put(base, n)
}

// put makes an entry that is durable at once.
func (n *node) put(base string, e *node) {
	n.entries[base] = e
	if len(n.pending) > 0 {
		n.before[base] = e
	}
}
