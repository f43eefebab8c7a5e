package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// The journal of a directory and those of both databases keep the same
// promises.
func TestJournal(t *testing.T) {
	t.Parallel()
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		journalSuite(t, rotation.NewDirJournal(filepath.Join(t.TempDir(), "state")))
	})
	both(t, func(t *testing.T, d database) { journalSuite(t, d.open(t).Journal("w1")) })
}

func journalSuite(t *testing.T, j rotation.Journal) {
	ctx := t.Context()
	b, err := j.Peek(ctx, "a")
	require.NoError(t, err)
	require.Nil(t, b)

	s := begin(t, j, "a")
	b, damaged, err := s.Load(ctx)
	require.NoError(t, err)
	assert.Nil(t, b)
	assert.False(t, damaged)
	last, err := s.Last(ctx)
	require.NoError(t, err)
	assert.Nil(t, last)
	_, err = j.Begin(ctx, "a")
	require.ErrorIs(t, err, rotation.ErrBusy)
	require.NoError(t, begin(t, j, "b").Close(), "another job is free")

	records := []string{`{"n":1}`, string(pad(`{"n":2}`, 9000)), `{"n":3}`, "\x00\xff binary", `{"n":5}`}
	for i, r := range records {
		require.NoError(t, s.Reserve(ctx))
		require.NoError(t, s.Save(ctx, []byte(r)))
		b, damaged, err = s.Load(ctx)
		require.NoError(t, err)
		assert.Equal(t, r, string(b))
		assert.False(t, damaged)
		b, err = j.Peek(ctx, "a")
		require.NoError(t, err)
		assert.Equal(t, r, string(b))
		line := fmt.Sprintf(`{"n":%d,"hash":"h%d"}`, i, i)
		require.NoError(t, s.Append(ctx, []byte(line)))
		last, err = s.Last(ctx)
		require.NoError(t, err)
		assert.Equal(t, line, string(last))
	}
	require.NoError(t, s.Close())

	s = begin(t, j, "a")
	b, damaged, err = s.Load(ctx)
	require.NoError(t, err)
	assert.False(t, damaged)
	assert.Equal(t, records[4], string(b))
	last, err = s.Last(ctx)
	require.NoError(t, err)
	assert.JSONEq(t, `{"n":4,"hash":"h4"}`, string(last))
	require.NoError(t, s.Save(ctx, []byte("next")), "without a reservation")
	require.NoError(t, s.Close())
	b, err = j.Peek(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, "next", string(b))

	// One of many has it.
	var group sync.WaitGroup
	var has, most atomic.Int32
	for range 16 {
		group.Go(func() {
			s, err := j.Begin(ctx, "c")
			if errors.Is(err, rotation.ErrBusy) {
				return
			}
			if !assert.NoError(t, err) {
				return
			}
			if n := has.Add(1); n > most.Load() {
				most.Store(n)
			}
			assert.NoError(t, s.Save(ctx, []byte("x")))
			has.Add(-1)
			assert.NoError(t, s.Close())
		})
	}
	group.Wait()
	assert.EqualValues(t, 1, most.Load())
}

func TestSessionAfterClose(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		st := d.open(t)
		j := st.Journal("w1")
		require.ErrorIs(t, st.Held("a"), store.ErrFenced)
		s := begin(t, j, "a")
		require.NoError(t, st.Held("a"))
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.ErrorIs(t, st.Held("a"), store.ErrFenced)
		require.ErrorIs(t, s.Save(ctx, nil), store.ErrClosed)
		require.ErrorIs(t, s.Reserve(ctx), store.ErrClosed)
		require.ErrorIs(t, s.Append(ctx, nil), store.ErrClosed)
		_, _, err := s.Load(ctx)
		require.ErrorIs(t, err, store.ErrClosed)
		_, err = s.Last(ctx)
		require.ErrorIs(t, err, store.ErrClosed)
		for _, name := range []string{"", ".", "../x", "a/b", ".x", strings.Repeat("x", 101), "ä", "a\x00"} {
			_, err := j.Begin(ctx, name)
			require.ErrorIs(t, err, rotation.ErrJournal, name)
			_, err = j.Peek(ctx, name)
			require.ErrorIs(t, err, rotation.ErrJournal, name)
		}
	})
}

func TestBusySaysWho(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		s := begin(t, d.open(t).Journal("worker\n7"), "a")
		_, err := d.open(t).Journal("w2").Begin(t.Context(), "a")
		var busy *store.BusyError
		require.ErrorAs(t, err, &busy)
		assert.Equal(t, "worker 7", busy.Owner)
		assert.Equal(t, d.kind == "sqlite", busy.Until.IsZero())
		assert.Contains(t, err.Error(), "a, by worker 7")
		require.NoError(t, s.Close())
	})
}

// A latest record that was changed, in any of its parts, is noticed, and the
// one before it is found; what is saved then is the latest again, and the whole
// one is kept beside it.
func TestDamagedRow(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		st := d.open(t)
		j := st.Journal("w1")
		for i, spoil := range []string{
			`record = 'x'`, `record = NULL`, `seq = 7`, `sum = ''`, `sum = 'x'`, `seq = 0, record = NULL, sum = ''`,
			`record = prev_record`, `record = prev_record, sum = prev_sum`, `seq = 9223372036854775807`,
		} {
			if d.kind == "sqlite" {
				spoil = strings.Replace(spoil, `'x'`, `x'78'`, 1)
				spoil = strings.Replace(spoil, `sum = x'78'`, `sum = 'x'`, 1)
			}
			job := fmt.Sprintf("j%d", i)
			s := begin(t, j, job)
			require.NoError(t, s.Save(ctx, []byte("one")))
			require.NoError(t, s.Save(ctx, []byte("two")))
			require.NoError(t, s.Close())
			_, err := st.SQL().ExecContext(ctx, `UPDATE keywright_journal SET `+spoil+` WHERE job = '`+job+`'`)
			require.NoError(t, err)
			b, err := j.Peek(ctx, job)
			require.NoError(t, err, spoil)
			assert.Equal(t, "one", string(b), spoil)
			s = begin(t, j, job)
			b, damaged, err := s.Load(ctx)
			require.NoError(t, err, spoil)
			assert.True(t, damaged, spoil)
			assert.Equal(t, "one", string(b), spoil)
			require.NoError(t, s.Save(ctx, []byte("three")), spoil)
			b, damaged, err = s.Load(ctx)
			require.NoError(t, err)
			assert.False(t, damaged)
			assert.Equal(t, "three", string(b))
			require.NoError(t, s.Close())
			_, err = st.SQL().ExecContext(ctx, `UPDATE keywright_journal SET sum = '' WHERE job = '`+job+`'`)
			require.NoError(t, err)
			s = begin(t, j, job)
			b, damaged, err = s.Load(ctx)
			require.NoError(t, err)
			assert.True(t, damaged)
			assert.Equal(t, "one", string(b), "the whole one was kept")
			require.NoError(t, s.Close())
		}
		s := begin(t, j, "k")
		require.NoError(t, s.Save(ctx, []byte("one")))
		require.NoError(t, s.Save(ctx, []byte("two")))
		_, err := st.SQL().ExecContext(ctx, `UPDATE keywright_journal SET sum = '', prev_sum = '' WHERE job = 'k'`)
		require.NoError(t, err)
		_, _, err = s.Load(ctx)
		require.ErrorIs(t, err, rotation.ErrJournal)
		_, err = j.Peek(ctx, "k")
		require.ErrorIs(t, err, rotation.ErrJournal)
		require.NoError(t, s.Close())

		// A record in another job's row is none.
		s = begin(t, j, "l")
		require.NoError(t, s.Save(ctx, []byte("one")))
		require.NoError(t, s.Close())
		_, err = st.SQL().ExecContext(ctx, `UPDATE keywright_journal SET job = 'm' WHERE job = 'l'`)
		require.NoError(t, err)
		_, err = j.Peek(ctx, "m")
		require.ErrorIs(t, err, rotation.ErrJournal)
	})
}

// Whatever makes the right another's, the first session writes nothing more.
func TestFencing(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		st := d.open(t)
		for i, steal := range []string{`epoch = epoch + 1`, `session = 'another'`} {
			for k, write := range []func(rotation.Session) error{
				func(s rotation.Session) error { return s.Save(ctx, []byte("late")) },
				func(s rotation.Session) error { return s.Append(ctx, []byte("late")) },
				func(s rotation.Session) error { return s.Reserve(ctx) },
				func(s rotation.Session) error { _, _, err := s.Load(ctx); return err },
			} {
				job := fmt.Sprintf("j%d-%d", i, k)
				s := begin(t, st.Journal("w1"), job)
				require.NoError(t, s.Save(ctx, []byte("mine")))
				require.NoError(t, s.Append(ctx, []byte("mine")))
				_, err := st.SQL().ExecContext(ctx, `UPDATE keywright_journal SET `+steal+` WHERE job = '`+job+`'`)
				require.NoError(t, err)
				err = write(s)
				require.ErrorIs(t, err, store.ErrFenced)
				require.ErrorIs(t, err, rotation.ErrBusy)
				require.ErrorIs(t, s.Save(ctx, []byte("late")), store.ErrFenced, "for good")
				require.ErrorIs(t, st.Held(job), store.ErrFenced)
				b, err := st.Journal("w1").Peek(ctx, job)
				require.NoError(t, err)
				assert.Equal(t, "mine", string(b))
				var trail bytes.Buffer
				require.NoError(t, st.AuditTrail(ctx, job, &trail))
				assert.Equal(t, "mine\n", trail.String())
				require.NoError(t, s.Close())
				var owner string
				require.NoError(t, st.SQL().QueryRowContext(ctx, `SELECT owner FROM keywright_journal WHERE job = '`+job+`'`).Scan(&owner))
				assert.Equal(t, "w1", owner, "it gives back nothing that is another's")
			}
		}
	})
}

// Many goroutines on two stores: one at a time has the right, and no record is
// lost.
func TestManyBegin(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		stores := []*store.Store{d.open(t), d.open(t)}
		var inside, total atomic.Int32
		var group sync.WaitGroup
		n := pick(24, 50)
		for i := range n {
			group.Go(func() {
				j := stores[i%2].Journal("w")
				for {
					s, err := j.Begin(ctx, "a")
					if errors.Is(err, rotation.ErrBusy) {
						select {
						case <-ctx.Done():
							return
						case <-time.After(5 * time.Millisecond):
						}
						continue
					}
					if !assert.NoError(t, err) {
						return
					}
					assert.EqualValues(t, 1, inside.Add(1))
					b, _, err := s.Load(ctx)
					assert.NoError(t, err)
					assert.NoError(t, s.Save(ctx, append(b, 'x')))
					total.Add(1)
					inside.Add(-1)
					assert.NoError(t, s.Close())
					return
				}
			})
		}
		group.Wait()
		require.EqualValues(t, n, total.Load())
		b, err := stores[0].Journal("w").Peek(ctx, "a")
		require.NoError(t, err)
		assert.Equal(t, strings.Repeat("x", n), string(b))
		var epoch int
		require.NoError(t, stores[0].SQL().QueryRowContext(ctx, `SELECT epoch FROM keywright_journal WHERE job = 'a'`).Scan(&epoch))
		assert.Equal(t, n, epoch)
	})
}

// until asks until the answer is yes.
func until(t *testing.T, what string, yes func() bool) {
	t.Helper()
	require.Eventually(t, yes, 20*time.Second, 10*time.Millisecond, what)
}

// A session that lives keeps its job for longer than its lease; one that ends
// without a word loses it when the lease is over.
func TestLease(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	ctx := t.Context()
	const lease = 600 * time.Millisecond
	holder, err := store.OpenPostgres(ctx, d.where, store.WithLease(lease))
	require.NoError(t, err)
	s := begin(t, holder.Journal("w1"), "a")
	require.NoError(t, s.Save(ctx, []byte("one")))
	other := d.open(t, store.WithLease(lease)).Journal("w2")
	for end := time.Now().Add(3 * lease); time.Now().Before(end); {
		_, err := other.Begin(ctx, "a")
		require.ErrorIs(t, err, rotation.ErrBusy)
		require.NoError(t, holder.Held("a"))
		<-time.After(lease / 10)
	}
	require.NoError(t, s.Save(ctx, []byte("two")))
	saved := time.Now()
	require.NoError(t, holder.Close(), "the heartbeat ends, and nothing is given back")
	var next rotation.Session
	until(t, "takeover", func() bool {
		next, err = other.Begin(ctx, "a")
		return err == nil
	})
	assert.GreaterOrEqual(t, time.Since(saved), lease/2)
	b, _, err := next.Load(ctx)
	require.NoError(t, err)
	assert.Equal(t, "two", string(b))
	require.NoError(t, next.Close())
	require.NoError(t, s.Close())
}

// A Begin whose context ends leaves nobody locked out.
func TestBeginCancelled(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		st := d.open(t)
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
			s, err := st.Journal("w").Begin(ctx, "a")
			cancel()
			if err == nil {
				require.NoError(t, s.Close())
			}
			require.NoError(t, begin(t, st.Journal("w"), "a").Close())
		}
	})
}

// A Begin while the store is being closed keeps nothing: the job is free.
func TestBeginWhileClosing(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		for i := range 10 {
			st := open(t, d)
			begun := make(chan rotation.Session)
			for range 4 {
				go func() {
					s, _ := st.Journal("w").Begin(t.Context(), fmt.Sprint("job-", i))
					begun <- s
				}()
			}
			recorder := st.Recorder()
			require.NoError(t, st.Close())
			for range 4 {
				if s := <-begun; s != nil {
					require.Error(t, s.Save(t.Context(), nil))
					require.NoError(t, s.Close())
				}
			}
			require.NoError(t, recorder.Close(t.Context()))
			late := st.Recorder()
			late.Observe(rotation.Waiting{})
			require.Error(t, late.Flush(t.Context()))
			require.NoError(t, st.Recorder().Close(t.Context()))
			if d.kind == "sqlite" {
				require.NoError(t, begin(t, d.open(t).Journal("w"), fmt.Sprint("job-", i)).Close())
			}
		}
	})
}

// Whatever the role has set, records are durable.
func TestSynchronousCommit(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	ctx := t.Context()
	st := d.open(t)
	_, err := st.SQL().ExecContext(ctx, `CREATE FUNCTION check_sync() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF current_setting('synchronous_commit') <> 'on' AND NEW.record IS NOT NULL THEN RAISE 'not durable'; END IF; RETURN NULL; END $$`)
	require.NoError(t, err)
	_, err = st.SQL().ExecContext(ctx, `CREATE CONSTRAINT TRIGGER check_sync AFTER UPDATE ON keywright_journal DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_sync()`)
	require.NoError(t, err)
	off := database{kind: "postgres", where: d.where + "&synchronous_commit=off"}.open(t)
	s := begin(t, off.Journal("w"), "a")
	require.NoError(t, s.Save(ctx, []byte("one")))
	require.NoError(t, s.Append(ctx, []byte("one")))
	require.NoError(t, s.Reserve(ctx))
	_, err = off.SQL().ExecContext(ctx, `UPDATE keywright_journal SET seq = seq`)
	require.ErrorContains(t, err, "not durable", "the check works")
	require.NoError(t, s.Save(ctx, []byte("two")))
	_, err = st.SQL().ExecContext(ctx, `DROP TRIGGER check_sync ON keywright_journal`)
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// A server that goes away fails what is asked of it; a Save that was begun
// waits for it; and everything works when it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	d := database{kind: "postgres", where: server.Database(t)}
	ctx := t.Context()
	st := d.open(t)
	hasty := d.open(t, store.WithPatience(100*time.Millisecond))
	j := st.Journal("w")
	s, h := begin(t, j, "a"), begin(t, hasty.Journal("w"), "h")
	require.NoError(t, s.Save(ctx, []byte("one")))
	require.NoError(t, s.Append(ctx, []byte("line one")))
	for i, end := range []func(testing.TB){server.Stop, server.Crash} {
		end(t)
		require.Error(t, st.Ping(ctx))
		_, err := j.Begin(ctx, "b")
		require.Error(t, err)
		require.NotErrorIs(t, err, rotation.ErrBusy)
		_, err = j.Peek(ctx, "a")
		require.Error(t, err)
		require.Error(t, s.Append(ctx, []byte("lost")))
		require.Error(t, s.Reserve(ctx))
		require.Error(t, h.Save(ctx, []byte("x")))
		record := fmt.Sprintf("saved through outage %d", i)
		saved := make(chan error)
		go func() { saved <- s.Save(ctx, []byte(record)) }()
		server.Start(t)
		require.NoError(t, <-saved)
		b, damaged, err := s.Load(ctx)
		require.NoError(t, err)
		assert.False(t, damaged)
		assert.Equal(t, record, string(b))
		last, err := s.Last(ctx)
		require.NoError(t, err)
		require.NoError(t, s.Append(ctx, append(last, '+')))
		until(t, "the database is back for it too", func() bool { return h.Save(ctx, []byte("y")) == nil })
	}
	require.NoError(t, s.Close())
	require.NoError(t, h.Close())
	var trail bytes.Buffer
	require.NoError(t, st.AuditTrail(ctx, "a", &trail))
	assert.Equal(t, "line one\nline one+\nline one++\n", trail.String())
	require.NoError(t, begin(t, j, "b").Close())
}

// A call whose answer was lost, before its commit or after, has taken effect
// once when it returns.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	p := startProxy(t, d.where)
	ctx := t.Context()
	st := database{kind: "postgres", where: p.url}.open(t)
	j := st.Journal("w")
	s := begin(t, j, "a")
	want := 0
	var trail strings.Builder
	for range pick(2, 3) {
		for answer := range 8 {
			p.loseAnswer(answer)
			want++
			require.NoError(t, s.Save(ctx, fmt.Append(nil, "record ", want)))
			p.loseAnswer(-1)
			b, damaged, err := s.Load(ctx)
			require.NoError(t, err)
			require.False(t, damaged)
			require.Equal(t, fmt.Sprint("record ", want), string(b))
			if want > 1 {
				var before string
				require.NoError(t, st.SQL().QueryRowContext(ctx, `SELECT convert_from(prev_record, 'UTF8') FROM keywright_journal WHERE job = 'a'`).Scan(&before))
				require.Equal(t, fmt.Sprint("record ", want-1), before)
			}

			// An audit line whose answer was lost is there or not; Last knows.
			p.loseAnswer(answer)
			err = s.Append(ctx, fmt.Append(nil, "line ", want))
			p.loseAnswer(-1)
			last, lerr := s.Last(ctx)
			require.NoError(t, lerr)
			if there := string(last) == fmt.Sprint("line ", want); there {
				fmt.Fprintln(&trail, string(last))
			} else {
				require.Error(t, err)
			}
		}
	}
	var seq int
	require.NoError(t, st.SQL().QueryRowContext(ctx, `SELECT seq FROM keywright_journal WHERE job = 'a'`).Scan(&seq))
	assert.Equal(t, want, seq)
	var got strings.Builder
	require.NoError(t, st.AuditTrail(ctx, "a", &got))
	assert.Equal(t, trail.String(), got.String())
	require.NoError(t, s.Close())

	// Nor does a lost answer of Begin keep the job from the next.
	for answer := range pick(16, 24) {
		p.loseAnswer(answer % 8)
		s, err := j.Begin(ctx, "b")
		p.loseAnswer(-1)
		if err != nil {
			require.NotErrorIs(t, err, rotation.ErrBusy)
			s = begin(t, j, "b")
		}
		require.NoError(t, s.Close())
	}
	require.Greater(t, p.lost.Load(), int64(pick(5, 10)))
}

// A record that the server has, but whose answer waits for a replica, is not
// called saved: not at the first try, and not when it is found there.
func TestSaveWaitsForReplica(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	d := database{kind: "postgres", where: server.Database(t)}
	ctx := t.Context()
	st := d.open(t)
	s := begin(t, st.Journal("w"), "a")
	require.NoError(t, s.Save(ctx, []byte("one")))
	replicas := func(names string) {
		execute(t, st, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`)
		execute(t, st, `SELECT pg_reload_conf()`)
		until(t, "the setting", func() bool {
			return value(t, st, `SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'`) == names
		})
	}
	replicas("nobody")
	for range 2 {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		require.Error(t, s.Save(short, []byte("two")))
		cancel()
		until(t, "the record", func() bool { // the server shows it when it has noticed that nobody waits
			b, err := st.Journal("w").Peek(ctx, "a")
			return err == nil && string(b) == "two"
		})
	}
	replicas("")
	require.NoError(t, s.Save(ctx, []byte("two")))
	require.Equal(t, "one", value(t, st, `SELECT convert_from(prev_record, 'UTF8') FROM keywright_journal`), "it was written once")
	require.Equal(t, "2", value(t, st, `SELECT seq FROM keywright_journal`))
	require.NoError(t, s.Close())
}

// A Save goes on trying while the server takes no writes, or cancels them.
func TestSavePatient(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	ctx := t.Context()
	admin := d.open(t)
	for name, c := range map[string]struct{ spoil, mend string }{
		"read-only": {`ALTER DATABASE %s SET default_transaction_read_only = on`, `SET default_transaction_read_only = off; ALTER DATABASE %s RESET default_transaction_read_only`},
		"cancelled": {
			`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled'; END $$;
			CREATE TRIGGER refuse BEFORE UPDATE ON keywright_journal FOR EACH ROW EXECUTE FUNCTION refuse()`,
			`DROP TRIGGER refuse ON keywright_journal`,
		},
		"out of memory": {
			`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of memory' USING ERRCODE = 'out_of_memory'; END $$;
			CREATE TRIGGER refuse BEFORE UPDATE ON keywright_journal FOR EACH ROW EXECUTE FUNCTION refuse()`,
			`DROP TRIGGER refuse ON keywright_journal`,
		},
	} {
		name := name
		db := value(t, admin, `SELECT current_database()`)
		tried := make(chan struct{}, 100)
		w := &watch{before: func(query string) {
			if strings.HasPrefix(query, "UPDATE keywright_journal AS j SET prev") {
				tried <- struct{}{}
			}
		}}
		st := d.open(t, store.WithLease(time.Hour))
		require.NoError(t, st.Interpose(w.connector))
		s := begin(t, st.Journal("w"), "a")
		execute(t, admin, strings.ReplaceAll(c.spoil, "%s", db))
		st.Pool().Reset() // as after a failover
		saved := make(chan error, 1)
		go func() { saved <- s.Save(ctx, []byte("patient")) }()
		for range 3 {
			select {
			case <-tried:
			case err := <-saved:
				require.NoError(t, err, name)
			}
		}
		execute(t, admin, strings.ReplaceAll(c.mend, "%s", db))
		require.NoError(t, <-saved, name)
		require.NoError(t, s.Close())
	}
}

// Whatever isolation the role has set, a Begin that waited for a move finds it.
func TestIsolation(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	ctx := t.Context()
	for _, level := range []string{"repeatable read", "serializable"} {
		st := database{kind: "postgres", where: d.where + "&default_transaction_isolation=" + url.QueryEscape(level)}.open(t)
		require.Equal(t, "read committed", value(t, st, `SHOW transaction_isolation`))
		other := database{kind: "postgres", where: d.where + "&default_transaction_isolation=" + url.QueryEscape(level)}.open(t)
		var group sync.WaitGroup
		s := begin(t, st.Journal("w"), "a")
		for range 4 { // that write the same row
			group.Go(func() {
				for range 20 {
					assert.NoError(t, s.Append(ctx, []byte("line")))
					_, err := other.Journal("w").Begin(ctx, "a")
					assert.ErrorIs(t, err, rotation.ErrBusy)
				}
			})
		}
		group.Wait()
		require.NoError(t, s.Close())
	}
}

// A store has one session of a job at a time: [Store.Held] is asked by name.
func TestOneSession(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	ctx := t.Context()
	st := d.open(t, store.WithLease(time.Hour))
	s := begin(t, st.Journal("w1"), "a")
	execute(t, st, `UPDATE keywright_journal SET expires = clock_timestamp() - interval '1 second'`)
	_, err := st.Journal("w2").Begin(ctx, "a")
	require.ErrorIs(t, err, rotation.ErrBusy, "what is under way in the first would be taken for the second's")
	other := d.open(t, store.WithLease(time.Hour))
	next := begin(t, other.Journal("w3"), "a")
	require.ErrorIs(t, s.Save(ctx, []byte("late")), store.ErrFenced)
	_, err = st.Journal("w2").Begin(ctx, "a")
	require.ErrorIs(t, err, rotation.ErrBusy)
	require.NoError(t, next.Close())
	_, err = st.Journal("w2").Begin(ctx, "a")
	require.ErrorIs(t, err, rotation.ErrBusy, "the first is not closed")
	require.NoError(t, s.Close())
	require.NoError(t, begin(t, st.Journal("w2"), "a").Close())
}

// proxy is between a store and its database.
type proxy struct {
	url     string
	server  string
	answers atomic.Int64 // until one is lost; negative: none
	lost    atomic.Int64
}

// loseAnswer makes the connection end instead of an answer, after so many.
func (p *proxy) loseAnswer(after int) { p.answers.Store(int64(after)) }

func startProxy(t *testing.T, where string) *proxy {
	u, err := url.Parse(where)
	require.NoError(t, err)
	const socket = ".s.PGSQL.5432"
	dir, err := os.MkdirTemp("", "kwpx-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	p := &proxy{server: filepath.Join(u.Query().Get("host"), socket)}
	p.answers.Store(-1)
	l, err := net.Listen("unix", filepath.Join(dir, socket))
	require.NoError(t, err)
	u.RawQuery = "host=" + url.QueryEscape(dir)
	p.url = u.String()
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.serve(&group, c) })
		}
	})
	t.Cleanup(func() { assert.NoError(t, l.Close()); group.Wait() })
	return p
}

func (p *proxy) serve(group *sync.WaitGroup, client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", p.server)
	if err != nil {
		return
	}
	group.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	b := make([]byte, 1<<16)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		if p.answers.Add(-1) == -1 {
			p.lost.Add(1)
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

func TestAuditTrail(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		st := d.open(t)
		s := begin(t, st.Journal("w"), "a")
		var want strings.Builder
		var lines []string
		for i := range 1003 {
			line := fmt.Sprint("line ", i)
			want.WriteString(line + "\n")
			if i < 3 {
				require.NoError(t, s.Append(ctx, []byte(line)))
				continue
			}
			lines = append(lines, line)
		}
		addLines(t, st, "a", 3, lines)
		var trail strings.Builder
		require.NoError(t, st.AuditTrail(ctx, "a", &trail))
		assert.Equal(t, want.String(), trail.String())
		full := errors.New("full")
		require.ErrorIs(t, st.AuditTrail(ctx, "a", writerFunc(func([]byte) (int, error) { return 0, full })), full)
		require.NoError(t, s.Close())
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
