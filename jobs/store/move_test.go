package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// kinds runs a test on each pair of databases.
func kinds(t *testing.T, test func(t *testing.T, from, to database)) {
	at := func(t *testing.T, kind string) database {
		if kind == "postgres" {
			return postgresAt(t)
		}
		return sqliteAt(t)
	}
	for _, from := range []string{"sqlite", "postgres"} {
		for _, to := range []string{"sqlite", "postgres"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				test(t, at(t, from), at(t, to))
			})
		}
	}
}

// chain returns the lines of an audit trail that holds.
func chain(job string, n int) []string {
	lines, previous := make([]string, n), ""
	for i := range lines {
		line := func(hash string) string {
			return fmt.Sprintf(`{"time":"%s %d","previous":%q,"hash":%q}`, job, i, previous, hash)
		}
		sum := sha256.Sum256([]byte(line("")))
		own := hex.EncodeToString(sum[:])
		lines[i], previous = line(own), own
	}
	return lines
}

// addLines adds lines to an audit trail of so many, all at once.
func addLines(t *testing.T, s *store.Store, job string, after int, lines []string) {
	t.Helper()
	blob := "BLOB"
	if s.Pool() != nil {
		blob = "BYTEA"
	}
	rows := make([]string, len(lines))
	for i, line := range lines {
		rows[i] = fmt.Sprintf(`('%s', %d, CAST('%s' AS %s))`, job, after+i+1, line, blob)
	}
	execute(t, s, `INSERT INTO keywright_audit (job, seq, line) VALUES `+strings.Join(rows, ", "))
	execute(t, s, fmt.Sprintf(`UPDATE keywright_journal SET audit_seq = %d WHERE job = '%s'`, after+len(lines), job))
}

// write makes a journal of a job, with one record for each text.
func write(t *testing.T, j rotation.Journal, job string, trail []string, records ...string) {
	t.Helper()
	s := begin(t, j, job)
	for _, r := range records {
		require.NoError(t, s.Save(t.Context(), []byte(r)))
	}
	for _, line := range trail {
		require.NoError(t, s.Append(t.Context(), []byte(line)))
	}
	require.NoError(t, s.Close())
}

func execute(t *testing.T, s *store.Store, query string) {
	t.Helper()
	_, err := s.SQL().ExecContext(t.Context(), query)
	require.NoError(t, err)
}

func value(t *testing.T, s *store.Store, query string) (v string) {
	t.Helper()
	require.NoError(t, s.SQL().QueryRowContext(t.Context(), query).Scan(&v))
	return v
}

func trailOf(t *testing.T, s *store.Store, job string) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, s.AuditTrail(t.Context(), job, &b))
	return b.String()
}

// fill gives a database some of everything.
func fill(t *testing.T, s *store.Store) {
	t.Helper()
	ctx, j := t.Context(), s.Journal("w1")
	write(t, j, "a", chain("a", 450)[:2], "a1", "a2", "a3")
	addLines(t, s, "a", 2, chain("a", 450)[2:])
	write(t, j, "broken", append(chain("broken", 3)[1:], "half a li"), "b1")
	write(t, j, "damaged", nil, "d1", "d2")
	execute(t, s, `UPDATE keywright_journal SET sum = 'x' WHERE job = 'damaged'`)
	write(t, j, "only-begun", nil)
	require.NoError(t, s.Put(ctx,
		store.Schedule{Job: "a", Due: noon, Spec: "every 1h", Owner: "w1"},
		store.Schedule{Job: "never", Spec: "x"},
		store.Schedule{Job: "registered", Due: noon, Spec: "x"}))
	require.NoError(t, s.SetOutcome(ctx, "a", store.Outcome{Run: noon, State: "RETIRING", Problem: "p", Attempts: 3, Due: noon.Add(time.Hour)}))
	_, err := s.AddRun(ctx, store.Run{Job: "never", Started: noon})
	require.NoError(t, err)
	id, err := s.AddRun(ctx, store.Run{Job: "a", Operation: "op", Owner: "w1", Started: noon, ResumeAt: noon.Add(time.Minute)})
	require.NoError(t, err)
	first, err := s.AddRun(ctx, store.Run{Job: "a", Started: noon, Finished: noon, State: "0", Problem: "ü"})
	require.NoError(t, err)
	execute(t, s, fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 249)
		INSERT INTO keywright_runs (job, operation, owner, started, finished, state, problem, resume_at)
		SELECT job, operation, owner, started, finished, CAST(i AS TEXT), problem, resume_at FROM keywright_runs, n WHERE id = %d ORDER BY n.i`, first))
	execute(t, s, fmt.Sprintf(`INSERT INTO keywright_facts (job, generation, finished, issued, expires, looked, run)
		VALUES ('a', 7, 1, 2, 3, 4, %d), ('never', 0, 0, 0, 0, 0, 0), ('registered', 5, 0, 0, 0, 0, 0), ('lost-run', 0, 0, 0, 0, 0, 999999)`, id))
	events := []store.Event{{Kind: store.KindLost, At: noon, Text: "3 events were not written"}}
	for i := range 300 {
		events = append(events, store.Event{Job: "a", Operation: "op", At: noon.Add(time.Duration(i)), Kind: store.KindSink, From: "f", To: "t", Sink: "s", Text: fmt.Sprint(i)})
	}
	require.NoError(t, s.AddEvent(ctx, events...))
}

// prepare gives the target what a worker there has made, and other jobs.
func prepare(t *testing.T, s *store.Store) {
	t.Helper()
	ctx, j := t.Context(), s.Journal("w2")
	write(t, j, "z", chain("z", 2), "z1")
	write(t, j, "a", nil) // a session that saved nothing
	require.NoError(t, s.Put(ctx, store.Schedule{Job: "a", Due: noon.Add(-time.Hour), Spec: "new"}, store.Schedule{Job: "registered", Due: noon.Add(time.Minute), Spec: "mine"}))
	for range 3 {
		_, err := s.AddRun(ctx, store.Run{Job: "z", Started: noon})
		require.NoError(t, err)
	}
	require.NoError(t, s.AddEvent(ctx, store.Event{Job: "z", At: noon, Kind: "z"}))
	execute(t, s, `INSERT INTO keywright_facts (job, generation, finished, issued, expires, looked, run) VALUES ('a', 1, 0, 0, 0, 0, 2), ('registered', 6, 0, 0, 0, 0, 0)`)
}

// requireMoved checks that what fill made is in s, and all that prepare did.
func requireMoved(t *testing.T, s *store.Store) {
	t.Helper()
	ctx, j := t.Context(), s.Journal("w3")
	for job, want := range map[string]string{"a": "a3", "broken": "b1", "damaged": "d1", "z": "z1", "only-begun": ""} {
		b, err := j.Peek(ctx, job)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	require.Equal(t, "a2", value(t, s, `SELECT prev_record FROM keywright_journal WHERE job = 'a'`))
	require.Equal(t, "3", value(t, s, `SELECT seq FROM keywright_journal WHERE job = 'a'`))
	require.Equal(t, "d2", value(t, s, `SELECT record FROM keywright_journal WHERE job = 'damaged'`))
	require.Equal(t, strings.Join(chain("a", 450), "\n")+"\n", trailOf(t, s, "a"))
	require.Equal(t, strings.Join(append(chain("broken", 3)[1:], "half a li"), "\n")+"\n", trailOf(t, s, "broken"))
	require.Equal(t, strings.Join(chain("z", 2), "\n")+"\n", trailOf(t, s, "z"))

	rows, err := s.List(ctx)
	require.NoError(t, err)
	require.Len(t, rows, 3)
	require.False(t, rows[0].Created.IsZero())
	rows[0].Created, rows[0].Updated = time.Time{}, time.Time{}
	require.Equal(t, store.Schedule{Job: "a", Due: noon.Add(time.Hour), Spec: "every 1h", Owner: "w1", LastRun: noon, LastState: "RETIRING", LastProblem: "p", Attempts: 3}, rows[0])
	require.True(t, rows[1].Due.IsZero())
	require.Equal(t, "mine", rows[2].Spec, "what has no journal stays as it is")

	runs, err := s.Runs(ctx, "", 1000)
	require.NoError(t, err)
	require.Len(t, runs, 3+252)
	for i, r := range runs[:250] {
		require.Equal(t, store.Run{ID: r.ID, Job: "a", Started: noon, Finished: noon, State: fmt.Sprint(249 - i), Problem: "ü"}, r)
	}
	open := runs[250]
	require.Equal(t, store.Run{ID: open.ID, Job: "a", Operation: "op", Owner: "w1", Started: noon, ResumeAt: noon.Add(time.Minute)}, open)
	require.Equal(t, "never", runs[251].Job)
	require.Equal(t, fmt.Sprintf("a 7 1 2 3 4 %d", open.ID), value(t, s, facts("a")))
	require.Equal(t, "registered 6 0 0 0 0 0", value(t, s, facts("registered")))
	require.Equal(t, "lost-run 0 0 0 0 0 0", value(t, s, facts("lost-run")))
	require.Equal(t, "4", value(t, s, `SELECT COUNT(*) FROM keywright_facts`))

	events, err := s.Events(ctx, "", 1000)
	require.NoError(t, err)
	require.Len(t, events, 302)
	require.Equal(t, store.Event{ID: events[0].ID, Job: "a", Operation: "op", At: noon, Kind: store.KindSink, From: "f", To: "t", Sink: "s", Text: "299"}, events[0])
	require.Equal(t, store.KindLost, events[300].Kind)
	require.Equal(t, "z", events[301].Kind)
}

func facts(job string) string {
	return `SELECT job || ' ' || generation || ' ' || finished || ' ' || issued || ' ' || expires || ' ' || looked || ' ' || run FROM keywright_facts WHERE job = '` + job + `'`
}

// requireLeft checks that nobody goes on with a source.
func requireLeft(t *testing.T, d database, open *store.Store) {
	t.Helper()
	_, err := openAt(t.Context(), d.kind, d.where)
	require.ErrorIs(t, err, store.ErrMoved)
	for _, job := range []string{"a", "new"} {
		_, err = open.Journal("w").Begin(t.Context(), job)
		require.ErrorIs(t, err, store.ErrMoved)
		require.NotErrorIs(t, err, rotation.ErrBusy)
	}
}

func TestMove(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, from, to database) {
		ctx := t.Context()
		a, b := from.open(t), to.open(t)
		fill(t, a)
		prepare(t, b)
		moved, err := b.MoveFrom(ctx, a)
		require.NoError(t, err)
		require.Equal(t, store.Moved{
			Jobs: []string{"a", "broken", "damaged"}, Unproven: []string{"broken"},
			AuditLines: 453, Schedules: 2, Runs: 252, Events: 301,
		}, moved)
		requireMoved(t, b)
		requireLeft(t, from, a)
		_, err = b.MoveFrom(ctx, a)
		require.ErrorIs(t, err, store.ErrMoved)

		// Both records are as good as they were.
		s := begin(t, b.Journal("w"), "damaged")
		r, damaged, err := s.Load(ctx)
		require.NoError(t, err)
		require.True(t, damaged)
		require.Equal(t, "d1", string(r))
		require.NoError(t, s.Save(ctx, []byte("d3")))
		require.NoError(t, s.Append(ctx, []byte("more")))
		require.NoError(t, s.Close())
		s = begin(t, b.Journal("w"), "a")
		last, err := s.Last(ctx)
		require.NoError(t, err)
		require.Equal(t, chain("a", 450)[449], string(last))
		require.NoError(t, s.Append(ctx, []byte("more")))
		require.NoError(t, s.Close())

		// And on to a third.
		third := sqliteAt(t)
		c := third.open(t)
		_, err = c.MoveFrom(ctx, b)
		require.NoError(t, err)
		r, err = c.Journal("w").Peek(ctx, "damaged")
		require.NoError(t, err)
		require.Equal(t, "d3", string(r))
		require.Equal(t, "more\n", trailOf(t, c, "damaged"))
		_, err = a.MoveFrom(ctx, c)
		require.ErrorIs(t, err, store.ErrMoved, "to what was left")
	})
}

func TestMoveToItself(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		a, b := d.open(t), d.open(t)
		for _, from := range []*store.Store{a, b} {
			_, err := a.MoveFrom(t.Context(), from)
			require.ErrorContains(t, err, "to itself")
		}
		require.NoError(t, begin(t, a.Journal("w"), "a").Close())
	})
}

// Nothing is moved over another journal of the same job.
func TestMoveConflict(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, from, to database) {
		ctx := t.Context()
		a, b := from.open(t), to.open(t)
		for i := range 9 {
			job := fmt.Sprintf("job-%d", i)
			write(t, a.Journal("w"), job, nil, "a")
			if i > 0 {
				write(t, b.Journal("w"), job, nil, "b")
			}
		}
		write(t, a.Journal("w"), "last", nil, "a")
		require.NoError(t, a.AddEvent(ctx, store.Event{Job: "job-1"}))
		for range 2 {
			_, err := b.MoveFrom(ctx, a)
			require.ErrorIs(t, err, store.ErrConflict)
			var conflict *store.ConflictError
			require.ErrorAs(t, err, &conflict)
			require.Len(t, conflict.Jobs, 8)
			require.Equal(t, "job-1", conflict.Jobs[0])
			require.EqualError(t, conflict, "store: the database has other journals of these jobs: job-1, job-2, job-3, job-4, job-5 and 3 more")
		}
		r, err := b.Journal("w").Peek(ctx, "job-1")
		require.NoError(t, err)
		require.Equal(t, "b", string(r))
		require.Equal(t, "8", value(t, b, `SELECT COUNT(*) FROM keywright_journal`))
		require.Equal(t, "0", value(t, b, `SELECT COUNT(*) FROM keywright_received`))
		require.Equal(t, "0", value(t, b, `SELECT COUNT(*) FROM keywright_events`))
		require.NoError(t, begin(t, a.Journal("w"), "job-1").Close(), "the source is as it was")
		from.open(t)
	})
}

// A database that somebody works is not moved.
func TestMoveBusy(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, from, to database) {
		ctx := t.Context()
		a, b := from.open(t), to.open(t)
		write(t, a.Journal("w"), "a", nil, "a1")
		s := begin(t, a.Journal("w1"), "a")
		_, err := b.MoveFrom(ctx, a)
		var busy *store.BusyError
		require.ErrorAs(t, err, &busy)
		require.ErrorIs(t, err, rotation.ErrBusy)
		require.Equal(t, []string{"a", "w1"}, []string{busy.Job, busy.Owner})
		require.Equal(t, from.kind == "postgres", !busy.Until.IsZero())
		require.NoError(t, s.Save(ctx, []byte("a2")), "the session goes on")
		require.NoError(t, s.Close())

		p := spawn(t, "work", from, time.Minute)
		require.Equal(t, "holding", p.says())
		_, err = b.MoveFrom(ctx, a)
		require.ErrorAs(t, err, &busy)
		require.Equal(t, []string{"job", "child"}, []string{busy.Job, busy.Owner})
		require.Equal(t, "saved", p.ask("x"))
		require.NoError(t, p.cmd.Process.Kill())
		_ = p.cmd.Wait()
		execute(t, a, `UPDATE keywright_journal SET expires = NULL`) // the lease is over

		runner, err := jobs.New(a, jobs.WithSealer(rotation.SealKeyEnv("NONE")), jobs.WithWorkerID("w"))
		require.NoError(t, err)
		require.NoError(t, runner.Start(ctx))
		defer func() { _ = runner.Stop(context.WithoutCancel(ctx)) }() // if the test ends early
		_, err = b.MoveFrom(ctx, a)
		require.ErrorIs(t, err, store.ErrLocked)
		require.NoError(t, runner.Stop(ctx))

		// A session at the target that has saved nothing yet.
		held := begin(t, b.Journal("w2"), "a")
		_, err = b.MoveFrom(ctx, a)
		if to.kind == "postgres" {
			require.ErrorAs(t, err, &busy)
			require.NoError(t, held.Close())
			unlock, err := b.Exclusive(ctx)
			require.NoError(t, err)
			defer func() { require.NoError(t, unlock()) }()
		} else {
			require.ErrorIs(t, err, rotation.ErrBusy)
			require.NoError(t, held.Close())
			unlock, err := b.Exclusive(ctx)
			require.NoError(t, err)
			_, err = b.MoveFrom(ctx, a)
			require.ErrorIs(t, err, store.ErrLocked)
			require.NoError(t, unlock())
		}
		moved, err := b.MoveFrom(ctx, a)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "job"}, moved.Jobs)
	})
}

// What is not here as it was there is not moved.
func TestMoveVerified(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, from, to database) {
		a, b := from.open(t), to.open(t)
		fill(t, a)
		for _, spoil := range []string{"audit SET line", "journal SET prev_record"} {
			table, column, _ := strings.Cut(spoil, " SET ")
			if to.kind == "postgres" {
				execute(t, b, `CREATE OR REPLACE FUNCTION spoil() RETURNS trigger AS $$ BEGIN NEW.`+column+` = 'x'; RETURN NEW; END $$ LANGUAGE plpgsql`)
				execute(t, b, `CREATE TRIGGER spoil BEFORE INSERT ON keywright_`+table+` FOR EACH ROW EXECUTE FUNCTION spoil()`)
			} else {
				execute(t, b, `CREATE TRIGGER spoil AFTER INSERT ON keywright_`+table+` BEGIN UPDATE keywright_`+spoil+` = x'00' WHERE rowid = NEW.rowid; END`)
			}
			_, err := b.MoveFrom(t.Context(), a)
			require.ErrorIs(t, err, rotation.ErrJournal)
			require.ErrorContains(t, err, "moving a: ")
			require.Equal(t, "0", value(t, b, `SELECT COUNT(*) FROM keywright_journal`))
			if to.kind == "postgres" {
				execute(t, b, `DROP TRIGGER spoil ON keywright_`+table)
			} else {
				execute(t, b, `DROP TRIGGER spoil`)
			}
		}
		_, err := b.MoveFrom(t.Context(), a)
		require.NoError(t, err)
	})
}

// Who asks for a job while it is being moved does not get it.
func TestMoveMeanwhile(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		a, other, b := d.open(t), d.open(t), sqliteAt(t).open(t)
		write(t, a.Journal("w"), "a", nil, "a1")
		results := make(chan error, 2)
		w := &watch{before: func(query string) {
			if !strings.HasPrefix(query, "UPDATE keywright_database") {
				return
			}
			for _, job := range []string{"a", "new"} {
				go func() {
					_, err := other.Journal("w").Begin(context.WithoutCancel(t.Context()), job)
					results <- err
				}()
			}
			if d.kind == "postgres" {
				conn := d.open(t)
				require.Eventually(t, func() bool {
					return value(t, conn, `SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) == "2"
				}, 20*time.Second, 10*time.Millisecond)
			}
		}}
		require.NoError(t, a.Interpose(w.connector))
		_, err := b.MoveFrom(t.Context(), a)
		require.NoError(t, err)
		for range 2 {
			require.ErrorIs(t, <-results, store.ErrMoved)
		}
	})
}

// A session of the source whose lease was over, of a worker that was paused,
// writes nothing after the move.
func TestMoveFencesThePaused(t *testing.T) {
	t.Parallel()
	from, to := postgresAt(t), sqliteAt(t)
	ctx := t.Context()
	a, b := from.open(t), to.open(t)
	paused := from.open(t, store.WithLease(time.Hour))
	s := begin(t, paused.Journal("w1"), "a")
	require.NoError(t, s.Save(ctx, []byte("a1")))
	execute(t, a, `UPDATE keywright_journal SET expires = clock_timestamp() - interval '1 second'`)
	_, err := b.MoveFrom(ctx, a)
	require.NoError(t, err)
	require.ErrorIs(t, s.Save(ctx, []byte("late")), store.ErrFenced)
	require.ErrorIs(t, s.Append(ctx, []byte("late")), store.ErrFenced)
	require.ErrorIs(t, paused.Held("a"), store.ErrFenced)
	require.NoError(t, s.Close())
	require.Equal(t, "a1", value(t, b, `SELECT record FROM keywright_journal`))
}

// A database that is moved away while another is moved to it does not take what
// nobody would find there.
func TestMoveToWhatMoves(t *testing.T) {
	t.Parallel()
	a, middle, end := sqliteAt(t).open(t), postgresAt(t), sqliteAt(t).open(t)
	ctx := t.Context()
	write(t, a.Journal("w"), "a", nil, "a1")
	b, other := middle.open(t), middle.open(t)
	once := false
	w := &watch{before: func(query string) {
		if strings.HasPrefix(query, "INSERT INTO keywright_journal") && !once {
			once = true
			_, err := end.MoveFrom(ctx, other)
			require.NoError(t, err)
		}
	}}
	require.NoError(t, b.Interpose(w.connector))
	_, err := b.MoveFrom(ctx, a)
	require.ErrorIs(t, err, store.ErrMoved)
	require.True(t, once)
	_, err = end.MoveFrom(ctx, a)
	require.NoError(t, err, "the source is as it was")
}

// A rotation whose new token is only in the journal is finished after a move.
func TestMoveMidRotation(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, from rotation.Journal, to *store.Store, move func() (store.Moved, error)) {
		ctx := t.Context()
		v := startService(t)
		before := v.token(t)
		_, err := v.engine(t, &deadAt{Journal: from, state: `"state":"ISSUED"`}).Rotate(ctx, v.job)
		require.ErrorIs(t, err, errDead)
		require.Equal(t, before, v.token(t))
		accepted := v.accepted()
		moved, err := move()
		require.NoError(t, err)
		require.Equal(t, []string{"job"}, moved.Jobs)
		require.Empty(t, moved.Unproven)
		e := v.engine(t, to.Journal("w2"))
		status, err := e.Status(ctx, "job")
		require.NoError(t, err)
		require.Equal(t, rotation.StateIssued, status.State)
		result, err := e.Rotate(ctx, v.job)
		require.NoError(t, err)
		require.True(t, result.Resumed)
		require.Equal(t, rotation.StateDone, result.State)
		require.NotEqual(t, before, v.token(t))
		require.Contains(t, accepted, v.token(t), "the token that was in the journal")
		require.Contains(t, v.accepted(), v.token(t))
		_, err = rotation.CheckAudit(strings.NewReader(trailOf(t, to, "job")))
		require.NoError(t, err)
	}
	kinds(t, func(t *testing.T, from, to database) {
		a, b := from.open(t), to.open(t)
		test(t, a.Journal("w1"), b, func() (store.Moved, error) { return b.MoveFrom(t.Context(), a) })
	})
	t.Run("directory", func(t *testing.T) {
		both(t, func(t *testing.T, to database) {
			b, dir := to.open(t), filepath.Join(t.TempDir(), "state")
			test(t, rotation.NewDirJournal(dir), b, func() (store.Moved, error) { return b.MoveFromDir(t.Context(), dir) })
		})
	})
}

// deadAt is a journal whose process dies after a record was saved.
type deadAt struct {
	rotation.Journal
	state string
}

func (j *deadAt) Begin(ctx context.Context, job string) (rotation.Session, error) {
	s, err := j.Journal.Begin(ctx, job)
	return &deadSession{Session: s, state: j.state}, err
}

type deadSession struct {
	rotation.Session
	state string
	dead  bool
}

func (s *deadSession) Save(ctx context.Context, record []byte) error {
	if s.dead {
		return errDead
	}
	if err := s.Session.Save(ctx, record); err != nil {
		return err
	}
	if s.dead = bytes.Contains(record, []byte(s.state)); s.dead {
		return errDead
	}
	return nil
}

func (s *deadSession) Append(ctx context.Context, line []byte) error {
	if s.dead {
		return errDead
	}
	return s.Session.Append(ctx, line)
}

// A move that is interrupted at any of its statements, before or after that has
// had its effect, is finished by the next one, and nothing is there twice.
func TestMoveInterrupted(t *testing.T) {
	t.Parallel()
	fillLittle := func(t *testing.T, s *store.Store) {
		write(t, s.Journal("w"), "a", chain("a", 2), "a1", "a2")
		write(t, s.Journal("w"), "b", nil, "b1")
		require.NoError(t, s.Put(t.Context(), store.Schedule{Job: "a", Spec: "x"}, store.Schedule{Job: "c", Spec: "x"}))
		for _, job := range []string{"a", "b", "c"} {
			_, err := s.AddRun(t.Context(), store.Run{Job: job})
			require.NoError(t, err)
			require.NoError(t, s.AddEvent(t.Context(), store.Event{Job: job}))
		}
		require.NoError(t, s.AddEvent(t.Context(), store.Event{}))
	}
	var turn atomic.Int64
	kinds(t, func(t *testing.T, from, to database) {
		mine := int(turn.Add(1))
		a, b := open(t, from), open(t, to)
		fillLittle(t, a)
		require.NoError(t, errors.Join(a.Close(), b.Close()))
		full, empty := snapshot(t, from), snapshot(t, to)
		for at := 1; ; at++ {
			tripped := true
			for i, lost := range []bool{false, true} {
				if soak || (at+mine+2*i)%4 == 0 { // else another pair shows it
					tripped = interrupted(t, full(t), empty(t), at, lost)
				}
			}
			if !tripped {
				t.Logf("%d statements", at-1)
				require.Greater(t, at, 30)
				return
			}
		}
	})
}

// interrupted interrupts a move at a statement, if it has so many, and finishes
// it.
func interrupted(t *testing.T, from, to database, at int, lost bool) (tripped bool) {
	t.Helper()
	a, b := open(t, from), open(t, to)
	w := &watch{at: at, lost: lost}
	require.NoError(t, errors.Join(a.Interpose(w.connector), b.Interpose(w.connector)))
	_, err := b.MoveFrom(t.Context(), a)
	tripped = w.count >= at
	require.Equal(t, tripped, err != nil, "at %d, %v", at, err)
	require.NoError(t, errors.Join(a.Close(), b.Close()))

	b = open(t, to)
	again, openErr := openAt(t.Context(), from.kind, from.where)
	if err == nil || openErr != nil {
		require.ErrorIs(t, openErr, store.ErrMoved, "at %d", at)
	} else {
		moved, err := b.MoveFrom(t.Context(), again)
		require.NoError(t, err, "at %d", at)
		require.Equal(t, []string{"a", "b"}, moved.Jobs)
		require.NoError(t, again.Close())
		_, err = openAt(t.Context(), from.kind, from.where)
		require.ErrorIs(t, err, store.ErrMoved)
	}
	require.Equal(t, strings.Join(chain("a", 2), "\n")+"\n", trailOf(t, b, "a"), "at %d", at)
	for query, want := range map[string]string{
		`SELECT record FROM keywright_journal WHERE job = 'a'`: "a2", `SELECT record FROM keywright_journal WHERE job = 'b'`: "b1",
		`SELECT COUNT(*) FROM keywright_journal`: "2", `SELECT COUNT(*) FROM keywright_schedule`: "2",
		`SELECT COUNT(*) FROM keywright_runs`: "3", `SELECT COUNT(*) FROM keywright_events`: "4",
	} {
		require.Equal(t, want, value(t, b, query), "at %d, lost %v: %s", at, lost, query)
	}
	require.NoError(t, b.Close())
	return tripped
}

// open opens a database that the test closes.
func open(t *testing.T, d database) *store.Store {
	t.Helper()
	s, err := openAt(t.Context(), d.kind, d.where)
	require.NoError(t, err)
	return s
}

// A source that went on after a move was interrupted is another one; a target
// that did is not.
func TestMoveInterruptedAndUsed(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, from, to database) {
		ctx := t.Context()
		a, b := from.open(t), to.open(t)
		write(t, a.Journal("w"), "a", chain("a", 2), "a1")
		write(t, a.Journal("w"), "b", nil, "b1")
		w := &watch{before: func(query string) {
			if strings.HasPrefix(query, "UPDATE keywright_database") {
				panic(errDead)
			}
		}}
		dead := open(t, from)
		require.NoError(t, dead.Interpose(w.connector))
		func() {
			defer func() { require.Equal(t, errDead, recover()) }()
			_, _ = b.MoveFrom(ctx, dead)
		}()
		require.NoError(t, dead.Close())
		write(t, b.Journal("w"), "a", nil, "a2 at the target")
		write(t, a.Journal("w"), "b", nil, "b2 at the source")
		_, err := b.MoveFrom(ctx, a)
		var conflict *store.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, []string{"b"}, conflict.Jobs)
		execute(t, b, `DELETE FROM keywright_journal WHERE job = 'b'`)
		moved, err := b.MoveFrom(ctx, a)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, moved.Jobs)
		require.Equal(t, []string{"a"}, moved.Before)
		for job, want := range map[string]string{"a": "a2 at the target", "b": "b2 at the source"} {
			r, err := b.Journal("w").Peek(ctx, job)
			require.NoError(t, err)
			require.Equal(t, want, string(r))
		}
	})
}

// watch sees the statements of stores, and kills their connections at one.
type watch struct {
	before func(query string)
	at     int
	lost   bool // the statement has its effect, but nobody learns of it

	mu    sync.Mutex
	count int
	dead  bool
}

func (w *watch) connector(c driver.Connector) driver.Connector { return &watched{c, w} }

// statement runs one, unless all is over.
func (w *watch) statement(query string, do func() error) error {
	if w.before != nil {
		w.before(query)
	}
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		return driver.ErrBadConn
	}
	w.count++
	w.dead = w.count == w.at
	dead := w.dead
	w.mu.Unlock()
	if dead && !w.lost {
		return driver.ErrBadConn
	}
	if err := do(); err != nil || !dead {
		return err
	}
	return driver.ErrBadConn
}

type watched struct {
	driver.Connector
	w *watch
}

func (c *watched) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &watchedConn{conn, c.w}, nil
}

type watchedConn struct {
	driver.Conn
	w *watch
}

func (c *watchedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (tx driver.Tx, err error) {
	err = c.w.statement("BEGIN", func() error { tx, err = c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts); return err })
	if err != nil && tx != nil {
		_ = tx.Rollback()
	}
	return &watchedTx{tx, c.w}, err
}

func (c *watchedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (r driver.Result, err error) {
	err = c.w.statement(query, func() error { r, err = c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args); return err })
	return r, err
}

func (c *watchedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (r driver.Rows, err error) {
	err = c.w.statement(query, func() error { r, err = c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args); return err })
	if err != nil && r != nil {
		_ = r.Close()
	}
	return r, err
}

func (c *watchedConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type watchedTx struct {
	driver.Tx
	w *watch
}

func (t *watchedTx) Commit() error { return t.w.statement("COMMIT", t.Tx.Commit) }

// Ten thousand jobs, with little memory.
//
// Nothing runs beside it, because it measures.
func TestMoveTenThousand(t *testing.T) {
	pgtest.Hold(t)
	for _, kinds := range [][2]func(testing.TB) database{{sqliteAt, postgresAt}, {postgresAt, sqliteAt}} {
		from, to := kinds[0](t), kinds[1](t)
		t.Run(from.kind+" to "+to.kind, func(t *testing.T) { testMoveTenThousand(t, from, to) })
	}
}

func testMoveTenThousand(t *testing.T, from, to database) {
	ctx, n := t.Context(), many
	a, b := from.open(t), to.open(t)
	record := strings.Repeat("x", 3000)
	tx, err := a.SQL().BeginTx(ctx, nil)
	require.NoError(t, err)
	add := func(query string, args ...any) {
		if from.kind == "postgres" {
			for i := range args {
				query = strings.Replace(query, "?", fmt.Sprintf("$%d", i+1), 1)
			}
		}
		_, err := tx.ExecContext(ctx, query, args...)
		require.NoError(t, err)
	}
	for i := range n {
		job := fmt.Sprintf("key-%05d", i)
		add(`INSERT INTO keywright_journal (job, epoch, owner, session, seq, record, sum, audit_seq) VALUES (?, 1, '', '', 1, ?, 'sum', 20)`, job, []byte(record))
		lines := chain(job, 20)
		for k, line := range lines {
			add(`INSERT INTO keywright_audit (job, seq, line) VALUES (?, ?, ?)`, job, k+1, []byte(line))
		}
		add(`INSERT INTO keywright_facts (job, generation, finished, issued, expires, looked, run) VALUES (?, 1, 0, 0, 0, 0, 0)`, job)
	}
	require.NoError(t, tx.Commit())
	var rows []store.Schedule
	var events []store.Event
	for i := range n {
		job := fmt.Sprintf("key-%05d", i)
		rows = append(rows, store.Schedule{Job: job, Spec: "x"})
		for range 5 {
			events = append(events, store.Event{Job: job, Text: "an event"})
		}
	}
	require.NoError(t, errors.Join(a.Put(ctx, rows...), a.AddEvent(ctx, events...)))
	rows, events = nil, nil

	most, stop := heap(), make(chan struct{})
	start, peak := most, make(chan uint64)
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-ticker.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapInuse)
			}
		}
	}()
	began := time.Now()
	moved, err := b.MoveFrom(ctx, a)
	took := time.Since(began)
	close(stop)
	grown := int64(<-peak) - int64(start)
	require.NoError(t, err)
	require.Len(t, moved.Jobs, n)
	require.Equal(t, 20*n, moved.AuditLines)
	require.Equal(t, 5*n, moved.Events)
	require.Equal(t, n, moved.Schedules)
	t.Logf("moved %d jobs of 23 rows in %s; the heap grew by at most %d MiB", n, took.Round(time.Millisecond), grown>>20)
	require.Less(t, grown, int64(64<<20))
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
