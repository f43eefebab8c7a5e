package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation"
)

// Moved is what a move has brought.
type Moved struct {
	Jobs       []string // jobs whose journals are moved, sorted
	Before     []string // those of Jobs that were here already, from a move that was interrupted, and were not touched
	Unproven   []string // those of Jobs whose audit trails do not hold, which were moved as they are
	AuditLines int      // lines of audit trails
	Schedules  int      // rows of the schedule
	Runs       int      // of the history
	Events     int      // of the history

	// Source is where the directory is now that the journals came from; empty if
	// that was a database.
	Source string
	// SealKey is the file, below Source, of the sealing key that the directory
	// had. The journals need that key; empty if there is no such file.
	SealKey string
}

// ConflictError says which journals cannot be moved, because the database has
// others of the same jobs. It matches [ErrConflict].
type ConflictError struct {
	Jobs []string // names of the jobs, sorted
}

// Error returns one line.
func (e *ConflictError) Error() string {
	const most = 5
	s := ErrConflict.Error() + ": " + strings.Join(e.Jobs[:min(most, len(e.Jobs))], ", ")
	if more := len(e.Jobs) - most; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// Is matches [ErrConflict].
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// MoveFrom moves everything that another database has to this one: journals,
// with both records of each, audit trails, the schedule, and the history, whose
// rows get new ids. A job that has no journal there, and is in this schedule
// already, stays here as it is. River's tables are not moved: what is in them
// follows from the schedule.
//
// Tokens stay sealed. The same sealing key is needed afterwards.
//
// Nobody may work the other database meanwhile: the error matches [ErrLocked]
// if a process does, and is a [*BusyError] if a session has a job. Nobody can
// write to it until MoveFrom has returned. This database may be at work if it
// is PostgreSQL; if it is SQLite, the error matches [ErrLocked] too. A session
// here of a job that is moved is a [*BusyError]. The caller must not have
// [Store.Exclusive] of either.
//
// If this database has another journal of any of the jobs, nothing is moved,
// and the error is a [*ConflictError].
//
// All is written in one transaction, and what was written is read back and
// compared before it is committed. Once it is durable here, the other database
// is marked: it cannot be opened any more, and no session of it begins, with an
// error that matches [ErrMoved]. A session whose lease was over is fenced. A move that was interrupted between the two is
// finished by another, which writes nothing twice.
func (s *Store) MoveFrom(ctx context.Context, from *Store) (moved Moved, err error) {
	if err := s.differs(ctx, from); err != nil {
		return Moved{}, err
	}
	unlock, err := from.Exclusive(ctx)
	if err != nil {
		return Moved{}, fmt.Errorf("store: the database to move from: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	here := false
	err = from.inTx(ctx, func(t *tx) error {
		if err := from.vacate(ctx, t); err != nil {
			return fmt.Errorf("store: the database to move from: %w", from.wrap(err))
		}
		if err := s.receive(ctx, &tables{tx: t}, &moved); err != nil {
			return err
		}
		here = true
		// A session whose lease is over may not know that yet.
		if _, err := t.exec(ctx, `UPDATE keywright_journal SET epoch = epoch + 1, owner = '', session = '', expires = NULL WHERE session <> ''`); err != nil {
			return err
		}
		_, err := t.exec(ctx, `UPDATE keywright_database SET moved = ? WHERE `+t.d.durable, time.Now())
		return err
	})
	switch {
	case err != nil && here:
		return Moved{}, fmt.Errorf("store: the journals are moved, but the database that they came from could not be marked, move them again: %w", err)
	case err != nil:
		return Moved{}, err
	}
	return moved, nil
}

var errSame = errors.New("store: a database cannot be moved to itself, or to a copy of itself")

// differs fails if another store is the same database.
func (s *Store) differs(ctx context.Context, other *Store) error {
	a, err := identity(ctx, s.row)
	if err != nil {
		return s.wrap(err)
	}
	b, err := identity(ctx, other.row)
	if err != nil {
		return other.wrap(err)
	}
	if a == b {
		return errSame
	}
	return nil
}

// asker asks for one row, in a transaction or not.
type asker func(ctx context.Context, query string, args ...any) *sql.Row

// identity tells one database from all others.
func identity(ctx context.Context, row asker) (id string, err error) {
	err = row(ctx, `SELECT id FROM keywright_database`).Scan(&id)
	return id, err
}

// stays returns ErrMoved if the journals were moved to another database.
func (s *Store) stays(ctx context.Context, row asker) error {
	var when time.Time
	if err := row(ctx, `SELECT MAX(moved) FROM keywright_database`).Scan(moment{&when}); err != nil || when.IsZero() {
		return s.wrap(err)
	}
	return fmt.Errorf("%w, at %s", ErrMoved, when.Format(time.RFC3339))
}

// vacate keeps all others from writing until the transaction ends, and fails if
// somebody works the database.
func (s *Store) vacate(ctx context.Context, t *tx) error {
	for _, statement := range [...]string{t.d.patient, t.d.halt} {
		if statement == "" {
			continue // SQLite's transactions do so by themselves
		}
		if _, err := t.exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := s.stays(ctx, t.row); err != nil {
		return err
	}
	e := new(BusyError)
	err := t.row(ctx, `SELECT job, owner, expires FROM keywright_journal AS j WHERE NOT `+t.d.free+` ORDER BY job LIMIT 1`).Scan(&e.Job, &e.Owner, moment{&e.Until})
	if err == nil {
		return e
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if t.d.workers != "" {
		var there bool
		if err := t.row(ctx, t.d.workers).Scan(&there); err != nil {
			return err
		}
		if there {
			return ErrLocked
		}
	}
	return s.unlocked(ctx, t)
}

// unlocked fails if a session has a lock file of SQLite's. Who takes one now
// cannot write until the transaction ends.
func (s *Store) unlocked(ctx context.Context, t *tx) error {
	if s.path == "" {
		return nil
	}
	files, err := durable.OS{}.ReadDir(s.locks())
	if err != nil {
		return err
	}
	for _, file := range files {
		if job, ok := strings.CutSuffix(file.Name(), ".lock"); ok && validJob.MatchString(job) {
			if err := s.jobUnlocked(ctx, t, job); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) jobUnlocked(ctx context.Context, t *tx, job string) error {
	path := filepath.Join(s.locks(), job+".lock")
	if _, err := (durable.OS{}).Lstat(path); s.path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := durable.OS{}.Lock(ctx, path, false)
	if errors.Is(err, durable.ErrLocked) {
		e := &BusyError{Job: job}
		_ = t.row(ctx, `SELECT owner FROM keywright_journal WHERE job = ?`, job).Scan(&e.Owner)
		return e
	}
	if err != nil {
		return err
	}
	return unlock()
}

// source is where journals are moved from. Nobody else writes to it.
type source interface {
	// identity tells the source from others; it is empty for directories.
	identity(ctx context.Context) (string, error)
	// jobs returns the names of what is there, sorted.
	jobs(ctx context.Context) ([]string, error)
	records(ctx context.Context, job string) (records, error)
	// lines are those of the audit trail, the oldest first.
	lines(ctx context.Context, job string) iter.Seq2[[]byte, error]
	// rest moves what is no journal: of jobs for which keep is not true.
	rest(ctx context.Context, m *mover) error
}

// mover brings journals to a database.
type mover struct {
	to     *Store
	tx     *tx
	source source
	from   string          // identity of the source
	moved  *Moved          // what was done
	keep   map[string]bool // jobs that are here already
}

// receive brings everything that a source has here, in one transaction. When
// it has returned nil, that is durable.
func (s *Store) receive(ctx context.Context, from source, moved *Moved) (err error) {
	unlock, err := s.Exclusive(ctx)
	if err != nil {
		return fmt.Errorf("store: the database to move to: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	id, err := from.identity(ctx)
	if err != nil {
		return err
	}
	jobs, err := from.jobs(ctx)
	if err != nil {
		return err
	}
	return s.inTx(ctx, func(t *tx) error {
		if err := s.stays(ctx, t.row); err != nil {
			return err
		}
		for _, statement := range [...]string{t.d.patient, `SELECT ` + t.d.durable} {
			if statement == "" {
				continue
			}
			if _, err := t.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		m := &mover{to: s, tx: t, source: from, from: id, moved: moved, keep: make(map[string]bool)}
		conflict := new(ConflictError)
		for _, job := range jobs {
			err := m.journal(ctx, job)
			if errors.Is(err, ErrConflict) {
				conflict.Jobs = append(conflict.Jobs, job)
			} else if err != nil {
				return fmt.Errorf("store: moving %s: %w", job, t.d.wrap(err))
			}
		}
		if conflict.Jobs != nil {
			return conflict
		}
		if err := from.rest(ctx, m); err != nil {
			return err
		}
		// Another move may have taken this database away before the first write
		// here. Since then none can.
		return s.stays(ctx, t.row)
	})
}

// journal moves the journal of a job, if it has one, and is not here already.
func (m *mover) journal(ctx context.Context, job string) error {
	c, err := read(ctx, m.source, job)
	if err != nil {
		return err
	}
	here, err := read(ctx, &tables{tx: m.tx}, job)
	if err != nil {
		return err
	}
	var received int
	if err := m.tx.row(ctx, `SELECT COUNT(*) FROM keywright_received WHERE job = ? AND source = ? AND digest = ?`, job, m.from, c.digest).Scan(&received); err != nil {
		return err
	}
	switch same := here.digest == c.digest; {
	case received > 0, same && !c.empty():
		// Whatever became of it here since.
		m.keep[job] = true
	case c.empty():
	case !here.empty():
		return ErrConflict
	default:
		if err := m.write(ctx, job, &c); err != nil {
			return err
		}
	}
	if _, err := m.tx.exec(ctx, `INSERT INTO keywright_received (job, source, digest) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, job, m.from, c.digest); err != nil {
		return err
	}
	if c.empty() {
		return nil
	}
	m.moved.Jobs = append(m.moved.Jobs, job)
	if m.keep[job] {
		m.moved.Before = append(m.moved.Before, job)
	}
	if !c.proven {
		m.moved.Unproven = append(m.moved.Unproven, job)
	}
	return nil
}

// write writes a journal, and reads it back.
func (m *mover) write(ctx context.Context, job string, c *content) error {
	if err := m.to.jobUnlocked(ctx, m.tx, job); err != nil {
		return err
	}
	r := c.records
	n, err := m.tx.exec(ctx, `INSERT INTO keywright_journal AS j (job, epoch, owner, session, `+recordColumns+`, audit_seq) VALUES (?, 1, '', '', ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (job) DO UPDATE SET epoch = j.epoch + 1, owner = '', session = '', expires = NULL, seq = excluded.seq, record = excluded.record, sum = excluded.sum,
			prev_seq = excluded.prev_seq, prev_record = excluded.prev_record, prev_sum = excluded.prev_sum, audit_seq = excluded.audit_seq
		WHERE `+m.tx.d.free+` AND j.seq = 0 AND j.prev_seq = 0 AND j.audit_seq = 0`,
		job, r.latest.seq, r.latest.data, r.latest.sum, r.before.seq, r.before.data, r.before.sum, c.lines)
	if err != nil {
		return err
	}
	if n == 0 {
		return &BusyError{Job: job}
	}
	var rows [][]any
	var seq int64
	for line, err := range m.source.lines(ctx, job) {
		if err != nil {
			return err
		}
		seq++
		if rows = append(rows, []any{job, seq, line}); len(rows) == page {
			if _, err := m.tx.insert(ctx, "keywright_audit", "job, seq, line", rows, ""); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	if _, err := m.tx.insert(ctx, "keywright_audit", "job, seq, line", rows, ""); err != nil {
		return err
	}
	after, err := read(ctx, &tables{tx: m.tx}, job)
	if err != nil {
		return err
	}
	if after.digest != c.digest {
		return fmt.Errorf("%w: what was written is not what was read", rotation.ErrJournal)
	}
	m.moved.AuditLines += c.lines
	// What a worker knew of the job before is wrong now, and is read anew.
	_, err = m.tx.exec(ctx, `DELETE FROM keywright_facts WHERE job = ?`, job)
	return err
}

// page is how many rows are in memory at a time.
const page = 200

// insert adds rows, and returns how many.
func (t *tx) insert(ctx context.Context, table, columns string, rows [][]any, rest string) (int64, error) {
	if len(rows) == 0 {
		return 0, nil
	}
	places := "(?" + strings.Repeat(", ?", len(rows[0])-1) + ")"
	args := make([]any, 0, len(rows)*len(rows[0]))
	for _, row := range rows {
		args = append(args, row...)
	}
	return t.exec(ctx, `INSERT INTO `+table+` (`+columns+`) VALUES `+places+strings.Repeat(", "+places, len(rows)-1)+rest, args...)
}

// content is what a journal has of a job. The lines of its audit trail are too
// many to be kept.
type content struct {
	records
	lines  int    // of the audit trail
	digest string // of all
	proven bool   // the audit trail holds
}

func (c *content) empty() bool {
	none := func(r *record) bool { return r.seq == 0 && r.data == nil && r.sum == "" }
	return none(&c.latest) && none(&c.before) && c.lines == 0
}

// read reads a journal. A damaged record is as good as another: it is moved as
// it is.
func read(ctx context.Context, from source, job string) (content, error) {
	r, err := from.records(ctx, job)
	if err != nil {
		return content{}, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", job)
	for _, one := range [...]record{r.latest, r.before} {
		fmt.Fprintf(h, "%d %t %d %s\n", one.seq, one.data != nil, len(one.data), one.sum)
		h.Write(one.data)
	}
	next, stop := iter.Pull2(from.lines(ctx, job))
	defer stop()
	t := &trail{next: next, hash: h}
	_, broken := rotation.CheckAudit(t)
	if _, err := io.Copy(io.Discard, t); err != nil { // what comes after a broken link
		return content{}, err
	}
	return content{records: r, lines: t.lines, digest: hex.EncodeToString(h.Sum(nil)), proven: broken == nil}, nil
}

// trail reads an audit trail, and computes a hash of it.
type trail struct {
	next   func() ([]byte, error, bool)
	hash   hash.Hash
	lines  int
	err    error // of the source
	buffer bytes.Buffer
}

// Read implements io.Reader.
func (t *trail) Read(p []byte) (int, error) {
	for t.buffer.Len() == 0 {
		if t.err != nil {
			return 0, t.err
		}
		line, err, ok := t.next()
		if !ok {
			return 0, io.EOF
		}
		if err != nil {
			t.err = err
			continue
		}
		t.lines++
		fmt.Fprintf(t.hash, "%d\n", len(line))
		t.hash.Write(line)
		t.buffer.Write(line)
		t.buffer.WriteByte('\n')
	}
	return t.buffer.Read(p)
}

// MoveFromDir moves the journals of a directory, such as "keywright rotate"
// uses, to this database: the latest record of each job, and its audit trail.
// It is like [Store.MoveFrom]; the locks of all jobs are taken, and a
// [*BusyError] says which job somebody has.
//
// Tokens stay sealed. The same sealing key is needed afterwards: if the
// directory has one, the result says where that file is.
//
// Once the journals are durable here, the directory gets a name that ends in
// ".moved", or in ".moved2" and so on where there is one.
func (s *Store) MoveFromDir(ctx context.Context, dir string) (moved Moved, err error) {
	d, err := openDir(ctx, dir)
	if err != nil {
		return Moved{}, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := s.receive(ctx, d, &moved); err != nil {
		return Moved{}, err
	}
	if len(moved.Jobs) == 0 {
		return Moved{}, fmt.Errorf("%w: %s", errNoJournal, dir)
	}
	if moved.Source, err = d.retire(ctx); err != nil {
		return Moved{}, fmt.Errorf("store: the journals are moved, but %s could not be renamed, move them again: %w", dir, err)
	}
	if key := filepath.Join(moved.Source, sealKey); d.exists(key) {
		moved.SealKey = key
	}
	return moved, nil
}

var errNoJournal = fmt.Errorf("store: there is no journal: %w", fs.ErrNotExist)
