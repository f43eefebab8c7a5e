package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation"
)

// Journal returns the journal for an engine, in which sessions are named after
// owner: a worker, for people who look who has a job.
//
// Begin returns a [*BusyError] at once while another session has the job. On
// SQLite that is another session of this process, or a process that is alive;
// on PostgreSQL one whose lease is not over, or one of this store that is not
// closed. A job's name has 1 to 100 letters,
// digits, hyphens, underscores and dots, no dot first.
//
// Save goes on trying while the database is away, for as long as [WithPatience]
// says, and does nothing twice: when the answer to a commit was lost, it looks.
// It ends early with its context, with [ErrFenced], or with an error that
// will not pass. Where the server waits for replicas, so does Save: a record that
// is only found there is not saved yet. Every record has a checksum over itself,
// its number and its job.
//
// On SQLite, Begin, Save and Reserve fail with an error that matches
// [rotation.ErrJournal] if the file of the database was removed or replaced since
// it was opened.
//
// Reserve, on SQLite, puts enough aside for two more records of the size of
// the latest, and somewhat larger: pages in the database against a limit of its
// size, and files beside it, filled with random bytes, against a full disk or
// quota. A Save that finds no space gives one half of them back and tries
// again, the next Save the other. Somebody else may fill what was given back
// before SQLite takes it: that is the one way in which a reserved Save can fail
// for want of space.
//
// On PostgreSQL nothing can be put aside: a new version of a row is written
// beside the old one, whose space is free only after a vacuum, and a server
// whose disk for the log is full stops. There Reserve writes twice the space to
// the table and makes sure that it is committed, which finds a database that is
// full, read-only or away before the token is asked for; it is no promise.
//
// An audit line is durable when Append has returned. Append tries once.
//
// Close gives the right up; if PostgreSQL cannot be reached, the lease ends by
// itself, which is logged and no error.
func (s *Store) Journal(owner string) rotation.Journal {
	return &journal{store: s, owner: clean(owner, maxName)}
}

// Held reports whether this store's session of a job still keeps every other
// out, as far as can be known without asking the database: it returns nil
// until the lease is over that was begun or renewed last, by this machine's
// monotonic clock from the moment before that was sent. After that, and
// without a session, it returns an error that matches [ErrFenced]. On SQLite
// a session keeps its job until it is closed.
func (s *Store) Held(job string) error {
	session := s.session(job)
	if session == nil {
		return fmt.Errorf("%w (%s: no session)", ErrFenced, job)
	}
	session.state.Lock()
	defer session.state.Unlock()
	switch {
	case session.fenced:
		return session.fence()
	case s.leased && !time.Now().Before(session.until):
		return fmt.Errorf("%w (%s: the lease is over)", ErrFenced, job)
	}
	return nil
}

// session returns the session that this store has of a job; nil: none.
func (s *Store) session(job string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[job]
}

type journal struct {
	store *Store
	owner string
}

// Limits of single operations, where the caller has set none.
const (
	writeTimeout = 10 * time.Second // one try of a write
	closeTimeout = 5 * time.Second
	beginTimeout = time.Second // to take back what was not confirmed
)

var validJob = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

func checkJob(job string) error {
	if !validJob.MatchString(job) {
		return fmt.Errorf("%w: %.120q cannot be the name of a job", rotation.ErrJournal, job)
	}
	return nil
}

// Begin implements rotation.Journal.
func (j *journal) Begin(ctx context.Context, job string) (_ rotation.Session, err error) {
	if err := checkJob(job); err != nil {
		return nil, err
	}
	if err := j.store.inPlace(); err != nil {
		return nil, err
	}
	if j.store.leased && j.store.session(job) != nil {
		// Its lease may be over, but its calls may still be under way, and ask
		// Held by name.
		return nil, j.busy(ctx, job)
	}
	s := &session{store: j.store, job: job, name: randomName(), unlock: func() error { return nil }}
	if j.store.path != "" {
		s.unlock, err = durable.OS{}.Lock(ctx, s.path("lock"), false)
		if errors.Is(err, durable.ErrLocked) {
			return nil, j.busy(ctx, job)
		}
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		if err := s.dropSpares(); err != nil { // of a process that died
			return nil, errors.Join(err, s.unlock())
		}
	}
	start := time.Now()
	row := j.store.row(ctx, `INSERT INTO keywright_journal AS j (job, epoch, owner, session, expires)
		SELECT ?, 1, ?, ?, `+j.store.expires(j.store.lease)+` WHERE NOT EXISTS (SELECT 1 FROM keywright_database WHERE moved IS NOT NULL)
		ON CONFLICT (job) DO UPDATE SET epoch = j.epoch + 1, owner = excluded.owner, session = excluded.session, expires = excluded.expires
		WHERE (`+j.store.free+`) AND `+j.store.durable+` RETURNING epoch, `+recordColumns, job, j.owner, s.name)
	var r records
	err = row.Scan(append([]any{&s.epoch}, r.columns()...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errors.Join(j.busy(ctx, job), s.unlock())
	}
	if err != nil {
		if j.store.leased { // it may have been committed nevertheless
			after, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginTimeout)
			defer cancel()
			_, _ = j.store.exec(after, `UPDATE keywright_journal SET owner = '', session = '', expires = NULL WHERE job = ? AND session = ?`, job, s.name)
		}
		return nil, errors.Join(j.store.wrap(err), s.unlock())
	}
	s.note(&r)
	s.until = start.Add(j.store.lease)
	s.ctx, s.cancel = context.WithCancel(j.store.background)
	if err := j.store.hold(s); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

// hold notes a session, and keeps its lease, unless the store was closed
// meanwhile.
func (s *Store) hold(session *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if other := s.held[session.job]; other == nil || other.epoch < session.epoch {
		s.held[session.job] = session
	}
	if s.leased {
		s.running.Go(session.renew)
	}
	return nil
}

// busy says who has a job, if that can be found out, or that it was moved.
func (j *journal) busy(ctx context.Context, job string) error {
	if err := j.store.stays(ctx, j.store.row); errors.Is(err, ErrMoved) {
		return err
	}
	e := &BusyError{Job: job}
	_ = j.store.row(ctx, `SELECT owner, expires FROM keywright_journal WHERE job = ?`, job).Scan(&e.Owner, moment{&e.Until})
	return e
}

// Peek implements rotation.Journal.
func (j *journal) Peek(ctx context.Context, job string) ([]byte, error) {
	if err := checkJob(job); err != nil {
		return nil, err
	}
	var r records
	err := j.store.row(ctx, `SELECT `+recordColumns+` FROM keywright_journal WHERE job = ?`, job).Scan(r.columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, j.store.wrap(err)
	}
	b, _, err := r.best(job)
	return b, err
}

// record is one of the two that are kept of a job.
type record struct {
	seq  int64
	data []byte // nil: none
	sum  string
}

// whole reports whether a record is what was saved, or none was.
func (r *record) whole(job string) bool {
	if r.seq == 0 && r.data == nil && r.sum == "" {
		return true
	}
	return r.data != nil && r.sum == checksum(job, r.seq, r.data)
}

func checksum(job string, seq int64, data []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "keywright-store 1 %s %d %d\n", job, seq, len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// records are the two of a job.
type records struct{ latest, before record }

const recordColumns = `seq, record, sum, prev_seq, prev_record, prev_sum`

func (r *records) columns() []any {
	return []any{&r.latest.seq, &r.latest.data, &r.latest.sum, &r.before.seq, &r.before.data, &r.before.sum}
}

var errDamaged = fmt.Errorf("%w: damaged", rotation.ErrJournal)

// best returns the latest record that is whole.
func (r *records) best(job string) (data []byte, damaged bool, err error) {
	switch {
	case r.latest.whole(job) && (r.latest.data != nil || r.before.data == nil):
		return r.latest.data, false, nil
	case r.before.whole(job) && r.before.data != nil:
		return r.before.data, true, nil
	}
	return nil, false, errDamaged
}

// session is the right to a job.
type session struct {
	store  *Store
	job    string
	epoch  int64
	name   string
	unlock func() error // of SQLite's lock file
	ctx    context.Context
	cancel context.CancelFunc // ends the heartbeat

	mu     sync.Mutex // one call at a time
	seq    int64      // of the latest record
	size   int        // of the latest record
	spoilt bool       // the latest record is damaged: the one before it is the one to keep
	spares int        // halves of what was reserved
	given  bool       // a half was given back to the disk, and its pages are still there
	last   []byte     // line of the audit trail
	known  bool       // that is the last one
	closed bool

	state  sync.Mutex // of what the heartbeat shares
	until  time.Time  // the lease is ours, at least
	fenced bool
}

func randomName() string { return rand.Text() }

// mine is the condition that the session has the job, of the row j.
const mine = `j.job = ? AND j.epoch = ? AND j.session = ?`

func (s *session) mine(args ...any) []any { return append(args, s.job, s.epoch, s.name) }

// fence is the error of a session that has lost its job.
func (s *session) fence() error { return fmt.Errorf("%w (%s, epoch %d)", ErrFenced, s.job, s.epoch) }

// lose notes that the job is another's.
func (s *session) lose() error {
	s.state.Lock()
	defer s.state.Unlock()
	s.fenced = true
	return s.fence()
}

// usable takes the session for a call, unless it is of no use any more.
func (s *session) usable() error {
	s.state.Lock()
	defer s.state.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.fenced:
		return s.fence()
	}
	return nil
}

// extend notes that the lease was renewed by a statement sent at start.
func (s *session) extend(start time.Time) {
	s.state.Lock()
	defer s.state.Unlock()
	if until := start.Add(s.store.lease); until.After(s.until) {
		s.until = until
	}
}

// renew keeps the lease until the session is closed or fenced.
func (s *session) renew() {
	ticker := time.NewTicker(s.store.lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(s.ctx, min(writeTimeout, s.store.lease))
		err := s.keep(ctx)
		cancel()
		switch {
		case s.ctx.Err() != nil:
			return
		case errors.Is(err, ErrFenced):
			s.store.log.Error("store: a job was taken over", "job", s.job, "epoch", s.epoch)
			return
		case err != nil:
			s.store.log.Warn("store: the lease of a job was not renewed", "job", s.job, "error", err)
		}
	}
}

// keepQuery keeps the lease. It is durable, and so is what was written before.
func (s *session) keepQuery() string {
	return `UPDATE keywright_journal AS j SET expires = ` + s.store.expires(s.store.lease) + ` WHERE ` + mine + ` AND ` + s.store.durable
}

// keep renews the lease.
func (s *session) keep(ctx context.Context) error {
	start := time.Now()
	n, err := s.store.exec(ctx, s.keepQuery(), s.mine()...)
	switch {
	case err != nil:
		return err
	case n == 0:
		return s.lose()
	}
	s.extend(start)
	return nil
}

// read loads the two records, if the job is still this session's.
func (s *session) read(ctx context.Context) (records, error) {
	var r records
	var epoch int64
	var name string
	err := s.store.row(ctx, `SELECT epoch, session, `+recordColumns+` FROM keywright_journal WHERE job = ?`, s.job).Scan(append([]any{&epoch, &name}, r.columns()...)...)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && (epoch != s.epoch || name != s.name):
		return r, s.lose()
	case err != nil:
		return r, s.store.wrap(err)
	}
	return r, nil
}

// Load implements rotation.Session.
func (s *session) Load(ctx context.Context) (data []byte, damaged bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, false, err
	}
	r, err := s.read(ctx)
	if err != nil {
		return nil, false, err
	}
	s.note(&r)
	return r.best(s.job)
}

// note keeps what the next Save has to know.
func (s *session) note(r *records) {
	s.seq, s.size, s.spoilt = r.latest.seq, len(r.latest.data), !r.latest.whole(s.job)
	if r.latest.data == nil && r.before.data != nil {
		s.spoilt = true
	}
}

// Save implements rotation.Session.
func (s *session) Save(ctx context.Context, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.store.inPlace(); err != nil {
		return err
	}
	data = append([]byte{}, data...) // not nil
	ctx, cancel := context.WithTimeout(ctx, s.store.patience)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := s.try(ctx, data)
		switch {
		case err == nil:
			return nil
		case s.spares > 0 && s.store.tight(err):
			if err := s.give(); err != nil {
				return errors.Join(ErrFull, err)
			}
			continue
		case errors.Is(err, rotation.ErrBusy), errors.Is(err, rotation.ErrJournal), !s.store.passing(err):
			return err
		}
		s.store.reconnect(err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// try saves once. Saving the same again has no effect.
func (s *session) try(ctx context.Context, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for range 2 {
		seq, start := s.seq+1, time.Now()
		sum := checksum(s.job, seq, data)
		keep := `prev_seq = j.seq, prev_record = j.record, prev_sum = j.sum, `
		if s.spoilt {
			keep = ``
		}
		query := `UPDATE keywright_journal AS j SET ` + keep + `seq = ?, record = ?, sum = ?, expires = ` + s.store.expires(s.store.lease) +
			` WHERE ` + mine + ` AND j.seq = ? AND ` + s.store.durable
		n, err := s.write(ctx, query, append(s.mine(seq, data, sum), s.seq)...)
		if err != nil {
			return err
		}
		if n == 1 {
			s.seq, s.size, s.spoilt = seq, len(data), false
			s.extend(start)
			return nil
		}
		// Fenced, or an earlier try was committed and nobody has said so.
		r, err := s.read(ctx)
		if err != nil {
			return err
		}
		if r.latest.seq == seq && r.latest.sum == sum && r.latest.whole(s.job) {
			// The answer may be missing because a replica's is, without which this
			// is not durable yet. It is when what follows it is.
			if s.store.leased {
				if err := s.keep(ctx); err != nil {
					return err
				}
			}
			s.note(&r)
			return nil
		}
		s.note(&r)
	}
	return fmt.Errorf("%w: the record of %s is changed by somebody else", rotation.ErrJournal, s.job)
}

// write runs a statement that saves. What was given back of the reserved pages
// is freed in the same transaction, so that nobody else can take it.
func (s *session) write(ctx context.Context, query string, args ...any) (n int64, err error) {
	if !s.given {
		return s.store.exec(ctx, query, args...)
	}
	err = s.store.inTx(ctx, func(t *tx) error {
		if _, err := t.exec(ctx, `DELETE FROM keywright_reserve WHERE job = ? AND n >= ?`, s.job, s.spares); err != nil {
			return err
		}
		n, err = t.exec(ctx, query, args...)
		return err
	})
	s.given = s.given && err != nil
	return n, err
}

// spares is how many Saves are reserved for.
const spares = 2

// spareSize is what one Save may need: SQLite writes whole pages, those of the
// row, whose two records it moves, and of the tables' trees.
func (s *session) spareSize() int { return 64<<10 + 8*s.size }

// path is a file beside SQLite's database.
func (s *session) path(suffix string) string {
	return filepath.Join(s.store.locks(), s.job+"."+suffix)
}

func sparePath(s *session, n int) string { return s.path(fmt.Sprintf("spare%d", n)) }

// give gives one half of what was reserved back to the disk; the next try
// gives the pages back.
func (s *session) give() error {
	s.spares--
	s.given = true
	return remove(sparePath(s, s.spares))
}

func remove(path string) error {
	if err := (durable.OS{}).Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (s *session) dropSpares() error {
	var errs []error
	for n := range spares {
		errs = append(errs, remove(sparePath(s, n)))
	}
	return errors.Join(errs...)
}

// Reserve implements rotation.Session.
func (s *session) Reserve(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.store.inPlace(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	start := time.Now()
	err := s.store.inTx(ctx, func(t *tx) error {
		// The right first: it locks the row.
		n, err := t.exec(ctx, s.keepQuery(), s.mine()...)
		if err != nil {
			return err
		}
		if n == 0 {
			return s.lose()
		}
		ballast := make([]byte, s.spareSize())
		_, _ = rand.Read(ballast) // never fails; nothing can compress it
		for i := range spares {
			if _, err := t.exec(ctx, `INSERT INTO keywright_reserve (job, n, ballast) VALUES (?, ?, ?)
				ON CONFLICT (job, n) DO UPDATE SET ballast = excluded.ballast`, s.job, i, ballast); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.extend(start)
	if s.store.path == "" {
		return nil
	}
	for n := range spares {
		if err := s.makeSpare(n); err != nil {
			return err
		}
	}
	s.spares, s.given = spares, false
	return nil
}

// makeSpare makes a file that is removed when its space is needed.
func (s *session) makeSpare(n int) error {
	path := sparePath(s, n)
	if info, err := (durable.OS{}).Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() >= int64(s.spareSize()) {
		return nil
	}
	if err := remove(path); err != nil {
		return err
	}
	f, err := durable.OS{}.Create(path)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, err = io.CopyN(f, rand.Reader, int64(s.spareSize()))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("store: %w: %w", ErrFull, err), remove(path))
	}
	return nil
}

// Append implements rotation.Session.
func (s *session) Append(ctx context.Context, line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	s.known = false // until this has returned
	line = append([]byte{}, line...)
	var n int64
	var err error
	if s.store.append != "" {
		n, err = s.store.exec(ctx, s.store.append, append(s.mine(), line)...)
	} else {
		err = s.store.inTx(ctx, func(t *tx) error {
			var seq int64
			err := t.row(ctx, `UPDATE keywright_journal AS j SET audit_seq = j.audit_seq + 1 WHERE `+mine+` RETURNING audit_seq`, s.mine()...).Scan(&seq)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			n, err = t.exec(ctx, `INSERT INTO keywright_audit (job, seq, line) VALUES (?, ?, ?)`, s.job, seq, line)
			return err
		})
	}
	switch {
	case err != nil:
		return err
	case n == 0:
		return s.lose()
	}
	s.last, s.known = line, true
	return nil
}

// Last implements rotation.Session.
func (s *session) Last(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil || s.known {
		return bytes.Clone(s.last), err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := s.store.row(ctx, `SELECT line FROM keywright_audit WHERE job = ? ORDER BY seq DESC LIMIT 1`, s.job).Scan(&s.last)
	if errors.Is(err, sql.ErrNoRows) {
		s.last, err = nil, nil
	}
	s.known = err == nil
	return bytes.Clone(s.last), s.store.wrap(err)
}

// Close implements rotation.Session.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), closeTimeout)
	defer cancel()
	err := s.store.inTx(ctx, func(t *tx) error {
		n, err := t.exec(ctx, `UPDATE keywright_journal AS j SET owner = '', session = '', expires = NULL WHERE `+mine, s.mine()...)
		if err == nil && n == 1 {
			_, err = t.exec(ctx, `DELETE FROM keywright_reserve WHERE job = ?`, s.job)
		}
		return err
	})
	if err != nil {
		s.store.log.Warn("store: a job was not given back", "job", s.job, "error", err)
	}
	return s.end()
}

// abandon ends a session without the database.
func (s *session) abandon() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.end()
}

// end forgets the session, and lets the kernel's lock go last.
func (s *session) end() error {
	s.state.Lock()
	s.closed = true
	s.state.Unlock()
	s.cancel()
	s.store.mu.Lock()
	if s.store.held[s.job] == s {
		delete(s.store.held, s.job)
	}
	s.store.mu.Unlock()
	var err error
	if s.store.path != "" {
		err = s.dropSpares()
	}
	return errors.Join(err, s.unlock())
}

// AuditTrail writes a job's audit trail to w, a line for each entry, the
// oldest first, as [rotation.CheckAudit] reads it.
func (s *Store) AuditTrail(ctx context.Context, job string, w io.Writer) error {
	const page = 500
	for after := int64(0); ; {
		var buffer bytes.Buffer // nothing slow while the connection is taken
		n := 0
		err := s.rows(ctx, func(scan func(...any) error) error {
			var line []byte
			if err := scan(&after, &line); err != nil {
				return err
			}
			n++
			buffer.Write(line)
			return buffer.WriteByte('\n')
		}, `SELECT seq, line FROM keywright_audit WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?`, job, after, page)
		if err != nil {
			return err
		}
		if _, err := buffer.WriteTo(w); err != nil {
			return err
		}
		if n < page {
			return nil
		}
	}
}
