package rotation

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/keywright/keywright/internal/durable"
)

// Journal is where an engine keeps the state of its jobs: a directory by
// default. Another implementation must keep every promise that its methods
// make; the engine's safety rests on them.
type Journal interface {
	// Begin takes the exclusive right to a job, until the session is closed
	// or the process dies. It returns [ErrBusy] at once if another has it. A
	// right that can be lost while the process is only paused is not enough:
	// a call may be sent after a pause.
	Begin(ctx context.Context, job string) (Session, error)
	// Peek returns a job's latest record without any right to it; nil if
	// there is none.
	Peek(ctx context.Context, job string) ([]byte, error)
}

// Session is the exclusive right to a job's state.
type Session interface {
	// Load returns the latest record, nil if there is none. If the latest is
	// damaged it returns the one before it, and damaged is true.
	Load(ctx context.Context) (record []byte, damaged bool, err error)
	// Save makes record the latest, durably, and keeps the one before it.
	// After an error either may be the latest.
	Save(ctx context.Context, record []byte) error
	// Reserve makes sure that the next two Saves do not fail for want of space.
	Reserve(ctx context.Context) error
	// Append adds a line to the job's audit trail. It is durable when Close
	// has returned.
	Append(ctx context.Context, line []byte) error
	// Last returns the last whole line of the audit trail; nil if there is
	// none.
	Last(ctx context.Context) ([]byte, error)
	// Close gives the right up.
	Close() error
}

// Files of a job's directory.
const (
	stateFile   = "state"         // the latest record
	prevFile    = "state.prev"    // the one before
	nextFile    = "state.next"    // about to become the latest
	spareFile   = "state.spare"   // space for the next one
	reserveFile = "state.reserve" // and for the one after
	lockFile    = "lock"
	auditFile   = "audit.jsonl"
)

// dirJournal keeps each job in a directory of its own.
type dirJournal struct{ dir string }

// NewDirJournal returns a [Journal] in a directory: for each job one below it
// with its state, a lock and an audit trail. Directories have mode 0700, files
// 0600. The lock is the kernel's, and ends with the process.
func NewDirJournal(dir string) Journal { return dirJournal{dir} }

func (j dirJournal) Begin(ctx context.Context, job string) (Session, error) {
	fsys := durable.FromContext(ctx)
	dir := filepath.Join(j.dir, job)
	for _, d := range [...]string{j.dir, dir} {
		if err := fsys.Mkdir(d); err != nil {
			return nil, fmt.Errorf("rotation: journal: %w", err)
		}
		if err := durable.CheckPrivate(fsys, d); errors.Is(err, durable.ErrRefused) {
			return nil, fmt.Errorf("%w: %w", ErrJournal, err)
		} else if err != nil {
			return nil, fmt.Errorf("rotation: journal: %w", err)
		}
	}
	unlock, err := fsys.Lock(ctx, filepath.Join(dir, lockFile), false)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%w (%s)", ErrBusy, job)
	}
	if err != nil {
		return nil, fmt.Errorf("rotation: journal: %w", err)
	}
	s := &dirSession{fsys: fsys, dir: dir, unlock: unlock}
	// New directories must outlive a power cut. A parent that may not be read
	// was not made by us.
	for _, d := range [...]string{filepath.Dir(j.dir), j.dir} {
		if err := fsys.SyncDir(d); err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, errors.Join(fmt.Errorf("rotation: journal: %w", err), s.Close())
		}
	}
	return s, nil
}

func (j dirJournal) Peek(ctx context.Context, job string) ([]byte, error) {
	fsys, dir := durable.FromContext(ctx), filepath.Join(j.dir, job)
	for try := 1; ; try++ {
		found, err := look(fsys, dir)
		if err != nil || found.name == stateFile || found.name == "" || try == peekTries {
			return found.record, err
		}
		// Somebody is in the middle of a Save, or was killed there. Only what
		// stays is the latest.
		if err := (systemClock{}).Sleep(ctx, peekWait); err != nil {
			return nil, err
		}
	}
}

// How often, and how long apart, a look without the lock meets a Save that is
// not finished before it takes it for one that never will be.
const (
	peekTries = 20
	peekWait  = 2 * time.Millisecond
)

// dirSession is a locked directory.
type dirSession struct {
	fsys   durable.FS
	dir    string
	unlock func() error
	size   int    // of the latest block
	seq    uint64 // of the latest record
	broken bool   // a Save failed half way
	audit  durable.File
	last   []byte // line of the audit trail
}

func (s *dirSession) path(name string) string { return filepath.Join(s.dir, name) }

func (s *dirSession) Load(ctx context.Context) ([]byte, bool, error) {
	found, err := look(s.fsys, s.dir)
	if err != nil {
		return nil, false, err
	}
	if err := s.settle(context.WithoutCancel(ctx), found); err != nil {
		return nil, false, err
	}
	s.seq, s.size, s.broken = found.seq, found.size, false
	return found.record, found.damaged, nil
}

// settle finishes a Save that was interrupted before its last rename, so that
// the latest record is never in a file that is about to be written.
func (s *dirSession) settle(ctx context.Context, found finding) error {
	if found.name == "" || found.name == stateFile || found.name == prevFile {
		return nil
	}
	// It was written whole; whether it was made durable, nobody knows.
	f, err := s.fsys.OpenWrite(s.path(found.name))
	if err != nil {
		return fmt.Errorf("rotation: journal: %w", err)
	}
	if err := write(f, nil); err != nil {
		return err
	}
	return s.install(ctx, found.name)
}

// install makes a written file the latest, and keeps the one before it.
func (s *dirSession) install(ctx context.Context, name string) error {
	if _, err := s.fsys.Lstat(s.path(stateFile)); err == nil {
		if err := durable.Rename(ctx, s.fsys, s.path(stateFile), s.path(prevFile)); err != nil {
			return fmt.Errorf("rotation: journal: %w", err)
		}
	}
	if err := durable.Rename(ctx, s.fsys, s.path(name), s.path(stateFile)); err != nil {
		return fmt.Errorf("rotation: journal: %w", err)
	}
	if err := s.fsys.SyncDir(s.dir); err != nil {
		return fmt.Errorf("rotation: journal: %w", err)
	}
	return nil
}

func (s *dirSession) Save(ctx context.Context, record []byte) error {
	if s.broken {
		if _, _, err := s.Load(ctx); err != nil {
			return err
		}
	}
	s.broken = true
	ctx = context.WithoutCancel(ctx)
	b := block(s.seq+1, record)
	name, err := s.writeBlock(b)
	if err != nil {
		return err
	}
	if err := s.install(ctx, name); err != nil {
		return err
	}
	s.seq, s.size, s.broken = s.seq+1, len(b), false
	return nil
}

// writeBlock writes b to a reserved file, or to a new one, and returns the
// file's name.
func (s *dirSession) writeBlock(b []byte) (string, error) {
	name := spareFile
	f, err := s.fsys.OpenWrite(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		name = reserveFile
		f, err = s.fsys.OpenWrite(s.path(name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		name = nextFile
		if err := s.remove(name); err != nil {
			return "", err
		}
		f, err = s.fsys.Create(s.path(name))
	}
	if err != nil {
		return "", fmt.Errorf("rotation: journal: %w", err)
	}
	return name, write(f, b)
}

// write writes b to f, makes it durable, and closes f.
func write(f durable.File, b []byte) error {
	_, err := f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("rotation: journal: %w", err)
	}
	return nil
}

func (s *dirSession) remove(name string) error {
	if err := s.fsys.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotation: journal: %w", err)
	}
	return nil
}

func (s *dirSession) Reserve(context.Context) error {
	size := s.size + 2*blockSize
	for _, name := range [...]string{reserveFile, spareFile} {
		if info, err := s.fsys.Lstat(s.path(name)); err == nil && info.Mode().IsRegular() && info.Size() >= int64(size) {
			continue
		}
		if err := s.remove(name); err != nil {
			return err
		}
		f, err := s.fsys.Create(s.path(name))
		if err != nil {
			return fmt.Errorf("rotation: journal: %w", err)
		}
		if err := write(f, make([]byte, size)); err != nil {
			return err
		}
	}
	if err := s.fsys.SyncDir(s.dir); err != nil {
		return fmt.Errorf("rotation: journal: %w", err)
	}
	return nil
}

func (s *dirSession) Close() error {
	var err error
	if s.audit != nil {
		err = errors.Join(s.audit.Sync(), s.audit.Close())
	}
	return errors.Join(err, s.unlock())
}

func (s *dirSession) Append(_ context.Context, line []byte) error {
	if err := s.openAudit(); err != nil {
		return err
	}
	if _, err := s.audit.Write(append(bytes.Clone(line), '\n')); err != nil {
		return fmt.Errorf("rotation: audit: %w", err)
	}
	s.last = bytes.Clone(line)
	return nil
}

func (s *dirSession) Last(context.Context) ([]byte, error) {
	err := s.openAudit()
	return s.last, err
}

// openAudit opens the audit trail at its end, and closes a last line that was
// cut off.
func (s *dirSession) openAudit() error {
	if s.audit != nil {
		return nil
	}
	f, err := s.fsys.OpenWrite(s.path(auditFile))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.fsys.Create(s.path(auditFile))
	}
	if err != nil {
		return fmt.Errorf("rotation: audit: %w", err)
	}
	s.audit = f
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		whole, ended := bytes.CutSuffix(line, []byte{'\n'})
		if auditHash(whole) != "" { // else a power cut has left a part of it
			s.last = whole
		}
		if !ended && len(line) > 0 {
			if _, err := f.Write([]byte{'\n'}); err != nil {
				return fmt.Errorf("rotation: audit: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("rotation: audit: %w", err)
		}
	}
}

// A block is a record as it is on disk: a line that says what it is, the
// record, and zeros up to a whole number of pages.
const (
	blockSize  = 4 << 10
	blockMagic = "keywright-journal 1"
	maxBlock   = 4 << 20
)

func block(seq uint64, record []byte) []byte {
	head := fmt.Appendf(nil, "%s %d %d %s\n", blockMagic, seq, len(record), blockSum(seq, record))
	b := append(head, record...)
	return append(b, make([]byte, (blockSize-len(b)%blockSize)%blockSize)...)
}

func blockSum(seq uint64, record []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d\n", blockMagic, seq, len(record))
	h.Write(record)
	return hex.EncodeToString(h.Sum(nil))
}

var errDamaged = fmt.Errorf("%w: damaged", ErrJournal)

// parseBlock returns the record in a block.
func parseBlock(b []byte) (seq uint64, record []byte, err error) {
	head, rest, ok := bytes.Cut(b, []byte{'\n'})
	fields, isBlock := bytes.CutPrefix(head, []byte(blockMagic+" "))
	parts := bytes.Split(fields, []byte{' '})
	if !ok || !isBlock || len(parts) != 3 {
		return 0, nil, errDamaged
	}
	seq, err1 := strconv.ParseUint(string(parts[0]), 10, 64)
	n, err2 := strconv.Atoi(string(parts[1]))
	if err1 != nil || err2 != nil || n < 0 || n > len(rest) || blockSum(seq, rest[:n]) != string(parts[2]) {
		return 0, nil, errDamaged
	}
	return seq, rest[:n], nil
}

// readBlock returns what is in a file: nil without an error if there is none.
func readBlock(fsys durable.FS, path string) ([]byte, error) {
	b, _, err := durable.Read(fsys, path, maxBlock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rotation: journal: %w", err)
	}
	return b, nil
}

// finding is the latest record of a directory.
type finding struct {
	record  []byte
	seq     uint64
	name    string
	size    int
	damaged bool // a later one is damaged
}

// look finds the latest record that is whole. A file that never became the
// latest may be anything; but the latest must be there and be whole, or else
// be called damaged.
func look(fsys durable.FS, dir string) (finding, error) {
	var best finding
	var seen bool // something was the latest once
	for _, name := range [...]string{stateFile, nextFile, spareFile, reserveFile, prevFile} {
		b, err := readBlock(fsys, filepath.Join(dir, name))
		if err != nil {
			return finding{}, err
		}
		if b == nil {
			continue
		}
		settled := name == stateFile || name == prevFile
		seen = seen || settled
		seq, record, err := parseBlock(b)
		switch {
		case err != nil && name == stateFile:
			best.damaged = true
		case err == nil && seq > best.seq:
			// What comes after the latest settled record replaces a damaged one.
			best = finding{record: record, seq: seq, name: name, size: len(b), damaged: best.damaged && settled}
		}
	}
	if best.name == prevFile {
		best.damaged = true
	}
	if seen && best.record == nil {
		return finding{}, errDamaged
	}
	return best, nil
}
