package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
)

// Digest identifies the content of an event, without what changes from one
// attempt to deliver it to the next: its state and the number of retries. The
// zero Digest is unknown, and agrees with every other.
type Digest [sha256.Size]byte

// agrees reports whether two digests may be of the same content.
func (d Digest) agrees(other Digest) bool {
	return d == other || d == Digest{} || other == Digest{}
}

// DedupeStore remembers which events were accepted.
type DedupeStore interface {
	// Once calls accept, unless the event was accepted before: then it returns
	// [ErrDuplicate], or [ErrConflict] if it was another content. When accept
	// returns nil the event counts as accepted, and else it does not. Of calls
	// for one event at the same time one is made, and the others wait for it.
	Once(ctx context.Context, id keywright.EventID, content Digest, accept func() error) error
}

// verdict compares a delivery with what was accepted.
func verdict(have, content Digest) error {
	if have.agrees(content) {
		return ErrDuplicate
	}
	return ErrConflict
}

// MemoryStore is a [DedupeStore] that forgets the oldest events, and all of
// them when the process ends.
type MemoryStore struct {
	mu    sync.Mutex
	limit int
	seen  map[keywright.EventID]*seenEvent
	turn  []keywright.EventID // in order of acceptance
}

type seenEvent struct {
	content  Digest
	done     chan struct{} // closed when it is accepted or given up
	accepted bool
}

// NewMemoryStore returns a store that remembers up to limit events; 100,000 if
// limit is not positive.
func NewMemoryStore(limit int) *MemoryStore {
	if limit <= 0 {
		limit = 100_000
	}
	return &MemoryStore{limit: limit, seen: make(map[keywright.EventID]*seenEvent)}
}

// Once implements [DedupeStore].
func (m *MemoryStore) Once(ctx context.Context, id keywright.EventID, content Digest, accept func() error) error {
	for {
		m.mu.Lock()
		e := m.seen[id]
		if e == nil {
			break
		}
		if e.accepted {
			m.mu.Unlock()
			return verdict(e.content, content)
		}
		m.mu.Unlock()
		select {
		case <-e.done: // and look again
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e := &seenEvent{content: content, done: make(chan struct{})}
	m.seen[id] = e
	m.mu.Unlock()
	defer func() { // also if accept panics
		m.mu.Lock()
		defer m.mu.Unlock()
		close(e.done)
		if !e.accepted {
			delete(m.seen, id)
			return
		}
		m.turn = append(m.turn, id)
		if len(m.turn) > m.limit {
			delete(m.seen, m.turn[0])
			m.turn = m.turn[1:]
		}
	}()
	err := accept()
	m.mu.Lock()
	e.accepted = err == nil
	m.mu.Unlock()
	return err
}

// FileStore is a [DedupeStore] in a directory: it survives a restart, and can
// be shared by processes of one machine. It is an inbox too: with
// [FileStore.Accept] as the accept function of a [Handler], events are on the
// disk before they are answered, and [FileStore.Process] works through them,
// before and after a restart.
//
// Directories have mode 0700, files 0600. What was accepted is remembered for
// thirty days.
type FileStore struct {
	dir   string
	wake  chan struct{}
	made  atomic.Bool  // the directories are there, and that is durable
	swept atomic.Int64 // when, in Unix seconds
}

// retention is how long an accepted event is remembered: much longer than
// ricloud's five attempts can take.
const retention = 30 * 24 * time.Hour

// Of sweeps.
const (
	sweepEvery = 24 * time.Hour
	orphanAge  = time.Hour // a younger file may still be being written
)

// NewFileStore returns a store in dir, which is made when it is first used. It
// does no I/O.
func NewFileStore(dir string) *FileStore {
	return &FileStore{dir: dir, wake: make(chan struct{}, 1)}
}

// marker is what is on disk of an accepted event: below "seen" for as long as
// it is remembered, and with its body below "pending" until it was processed.
type marker struct {
	ID      keywright.EventID `json:"id"`
	Content string            `json:"content,omitempty"` // hexadecimal; empty: unknown
	At      time.Time         `json:"at"`
	Event   []byte            `json:"event,omitempty"`  // byte for byte, in base64
	Listed  bool              `json:"listed,omitempty"` // the event was listed, not delivered
}

// Directories of a store.
const (
	seenDir    = "seen"
	pendingDir = "pending"
	lockDir    = "locks"
)

const maxMarker = 32 << 20

// errDamaged says that a marker is not what this package has written.
var errDamaged = errors.New("webhook: store: damaged")

func fileName(id keywright.EventID) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

func (s *FileStore) path(kind, name string) string { return filepath.Join(s.dir, kind, name) }

// open makes the directories.
func (s *FileStore) open(fsys durable.FS) error {
	made := s.made.Load()
	for _, dir := range [...]string{s.dir, s.path(seenDir, ""), s.path(pendingDir, ""), s.path(lockDir, "")} {
		err := durable.CheckPrivate(fsys, dir)
		if errors.Is(err, fs.ErrNotExist) {
			made = false
			if err = fsys.Mkdir(dir); err == nil {
				err = durable.CheckPrivate(fsys, dir)
			}
		}
		if e := new(durable.Error); errors.Is(err, durable.ErrRefused) && errors.As(err, &e) {
			return fmt.Errorf("webhook: store: %s %s; it must be a directory of its own with mode 0700", e.Path, e.Reason)
		}
		if err != nil {
			return fmt.Errorf("webhook: store: %w", err)
		}
	}
	if made {
		return nil
	}
	if err := errors.Join(fsys.SyncDir(s.dir), fsys.SyncDir(filepath.Dir(s.dir))); err != nil {
		return fmt.Errorf("webhook: store: %w", err)
	}
	s.made.Store(true)
	return nil
}

// lock takes the lock that events with this name share with some others.
func (s *FileStore) lock(ctx context.Context, fsys durable.FS, name string) (func() error, error) {
	return fsys.Lock(ctx, s.path(lockDir, name[:1]), true)
}

// read returns a marker; nil if there is none.
func (s *FileStore) read(fsys durable.FS, kind, name string) (*marker, error) {
	b, _, err := durable.Read(fsys, s.path(kind, name), maxMarker)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("webhook: store: %w", err)
	}
	m := new(marker)
	if json.Unmarshal(b, m) != nil || fileName(m.ID) != name {
		return nil, fmt.Errorf("%w: %s", errDamaged, s.path(kind, name))
	}
	return m, nil
}

// accepted returns the marker of an event that was accepted; nil if it was not.
// What it returns is durable: whoever wrote it may have been killed before it
// was.
func (s *FileStore) accepted(fsys durable.FS, name string) (*marker, error) {
	for _, kind := range [...]string{seenDir, pendingDir} {
		m, err := s.read(fsys, kind, name)
		if errors.Is(err, errDamaged) && kind == seenDir {
			m, err = new(marker), nil // that it is there says enough
		}
		if err != nil {
			return nil, err
		}
		if m == nil { // if it is pending: it was killed right after accepting
			continue
		}
		if err := fsys.SyncDir(s.path(kind, "")); err != nil {
			return nil, fmt.Errorf("webhook: store: %w", err)
		}
		return m, nil
	}
	return nil, nil
}

func (s *FileStore) write(ctx context.Context, fsys durable.FS, kind, name string, m *marker) error {
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxMarker {
		err = fmt.Errorf("event is too large: more than %d bytes", maxMarker)
	}
	if err == nil {
		err = durable.Replace(ctx, fsys, s.path(kind, name), b, durable.Options{})
	}
	if err != nil {
		return fmt.Errorf("webhook: store: %w", err)
	}
	return nil
}

func (m *marker) digest() (d Digest) {
	_, _ = hex.Decode(d[:], []byte(m.Content)) // empty or whole
	return d
}

func textOf(d Digest) string {
	if d == (Digest{}) {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// Once implements [DedupeStore].
func (s *FileStore) Once(ctx context.Context, id keywright.EventID, content Digest, accept func() error) (err error) {
	fsys := durable.FromContext(ctx)
	if err := s.sweep(fsys, time.Now()); err != nil {
		return err
	}
	name := fileName(id)
	unlock, err := s.lock(ctx, fsys, name)
	if err != nil {
		return fmt.Errorf("webhook: store: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	m, err := s.accepted(fsys, name)
	if err != nil {
		return err
	}
	if m != nil {
		return verdict(m.digest(), content)
	}
	if err := accept(); err != nil {
		return err
	}
	// The event is accepted now, whatever ctx says.
	return s.write(context.WithoutCancel(ctx), fsys, seenDir, name, &marker{ID: id, Content: textOf(content), At: time.Now().UTC()})
}

// Accept puts an event into the inbox, durably. It is an accept function for
// [Handler] and [Reconcile], with the store itself as their store.
func (s *FileStore) Accept(ctx context.Context, e *Event) error {
	fsys := durable.FromContext(ctx)
	if err := s.open(fsys); err != nil {
		return err
	}
	m := &marker{ID: e.ID, Content: textOf(e.Digest()), At: time.Now().UTC(), Event: []byte(e.Raw.Reveal())}
	if e.Raw.IsZero() {
		b, err := e.encode()
		if err != nil {
			return err
		}
		m.Event, m.Listed = b, true
	}
	if err := s.write(context.WithoutCancel(ctx), fsys, pendingDir, fileName(e.ID), m); err != nil {
		return err
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// Pending returns how many events wait to be processed.
func (s *FileStore) Pending(ctx context.Context) (int, error) {
	names, err := s.names(durable.FromContext(ctx), pendingDir)
	return len(names), err
}

// names lists the markers of a kind.
func (s *FileStore) names(fsys durable.FS, kind string) (names []string, err error) {
	if err := s.open(fsys); err != nil {
		return nil, err
	}
	entries, err := fsys.ReadDir(s.path(kind, ""))
	if err != nil {
		return nil, fmt.Errorf("webhook: store: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") { // else it is being written
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Waits of Process.
const (
	pollEvery  = time.Second // for events that another process has accepted
	retryAfter = 5 * time.Second
)

// Process calls f with every event in the inbox, oldest first, one at a time,
// until ctx ends, whose error it returns. An event whose f returns nil is done
// with; one whose f fails is tried again every few seconds, and others
// meanwhile. If the process dies while f runs, f runs again after the restart:
// what it does must have the same effect twice as once, or be told apart by the
// event's ID. While one process does this, others that call it wait for their
// turn.
//
// Any other error is about the directory, or says that a file in it is damaged;
// all events that can be read have been tried then.
func (s *FileStore) Process(ctx context.Context, f func(context.Context, *Event) error) (err error) {
	fsys := durable.FromContext(ctx)
	if err := s.sweep(fsys, time.Now()); err != nil {
		return err
	}
	unlock, err := fsys.Lock(ctx, s.path(lockDir, "process"), true)
	if err != nil {
		return fmt.Errorf("webhook: store: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	failed := make(map[string]time.Time) // when to try again, by name
	for ctx.Err() == nil {
		if err := s.round(ctx, fsys, failed, f); err != nil {
			return err
		}
		t := time.NewTimer(pollEvery)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-t.C:
		}
		t.Stop()
		if err := s.sweep(fsys, time.Now()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// round calls f with each event that waits now.
func (s *FileStore) round(ctx context.Context, fsys durable.FS, failed map[string]time.Time, f func(context.Context, *Event) error) error {
	names, err := s.names(fsys, pendingDir)
	if err != nil {
		return err
	}
	type waiting struct {
		name string
		at   time.Time
	}
	var queue []waiting
	var damaged []error
	for _, name := range names {
		if time.Now().Before(failed[name]) {
			continue
		}
		switch m, err := s.read(fsys, pendingDir, name); {
		case errors.Is(err, errDamaged):
			damaged = append(damaged, err)
		case err != nil:
			return err
		case m != nil:
			queue = append(queue, waiting{name, m.At}) // not its body: there may be many
		}
	}
	slices.SortStableFunc(queue, func(a, b waiting) int { return a.at.Compare(b.at) })
	for _, w := range queue {
		if ctx.Err() != nil {
			return nil
		}
		switch done, err := s.process(ctx, fsys, w.name, f); {
		case errors.Is(err, errDamaged):
			damaged = append(damaged, err)
		case err != nil:
			return err
		case done:
			delete(failed, w.name)
		default:
			failed[w.name] = time.Now().Add(retryAfter)
		}
	}
	return errors.Join(damaged...)
}

// process calls f with one event.
func (s *FileStore) process(ctx context.Context, fsys durable.FS, name string, f func(context.Context, *Event) error) (done bool, err error) {
	e, err := s.claim(ctx, fsys, name)
	if e == nil || err != nil {
		return false, err
	}
	if f(ctx, e) != nil {
		return false, nil
	}
	if err := errors.Join(fsys.Remove(s.path(pendingDir, name)), fsys.SyncDir(s.path(pendingDir, ""))); err != nil {
		return false, fmt.Errorf("webhook: store: %w", err)
	}
	return true, nil
}

// claim returns an event that waits, and sees to it that the event is durably
// marked as accepted. It returns nil without an error if ctx has ended.
func (s *FileStore) claim(ctx context.Context, fsys durable.FS, name string) (e *Event, err error) {
	unlock, err := s.lock(ctx, fsys, name) // whoever accepts it has finished
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("webhook: store: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if ctx.Err() != nil {
		return nil, nil
	}
	m, err := s.read(fsys, pendingDir, name)
	if m == nil {
		return nil, err
	}
	if e, err = parseEvent(m.Event); err != nil || e.ID != m.ID {
		return nil, fmt.Errorf("%w: %s", errDamaged, s.path(pendingDir, name))
	}
	if m.Listed {
		e.Raw = keywright.Secret{}
	}
	m.Event, m.Listed = nil, false
	if seen, err := s.read(fsys, seenDir, name); seen == nil { // or it is damaged
		if err != nil && !errors.Is(err, errDamaged) {
			return nil, err
		}
		if err := s.write(context.WithoutCancel(ctx), fsys, seenDir, name, m); err != nil {
			return nil, err
		}
		return e, nil
	}
	if err := fsys.SyncDir(s.path(seenDir, "")); err != nil {
		return nil, fmt.Errorf("webhook: store: %w", err)
	}
	return e, nil
}

// sweep opens the store and, once a day, forgets what was accepted long ago and
// removes what a process that was killed has left half written.
func (s *FileStore) sweep(fsys durable.FS, now time.Time) error {
	if err := s.open(fsys); err != nil {
		return err
	}
	last := s.swept.Load()
	if now.Sub(time.Unix(last, 0)) < sweepEvery || !s.swept.CompareAndSwap(last, now.Unix()) {
		return nil
	}
	for _, kind := range [...]string{seenDir, pendingDir} {
		entries, err := fsys.ReadDir(s.path(kind, ""))
		if err != nil {
			return fmt.Errorf("webhook: store: %w", err)
		}
		for _, e := range entries {
			age := orphanAge
			if !strings.HasPrefix(e.Name(), ".") {
				if age = retention; kind == pendingDir {
					continue
				}
			}
			info, err := e.Info()
			if err == nil && now.Sub(info.ModTime()) > age {
				err = fsys.Remove(s.path(kind, e.Name()))
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("webhook: store: %w", err)
			}
		}
	}
	return nil
}
