package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// service is a provider, a file with the token, and the sealing key.
type service struct {
	fake *keywrighttest.Ricloud
	dir  string
	job  rotation.Job
}

func startService(t *testing.T) *service {
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(1)
	v := &service{fake: fake, dir: t.TempDir()}
	require.NoError(t, os.WriteFile(v.file(), []byte(fake.Token()+"\n"), 0o600))
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithTokenSource(keywright.FileToken(v.file())),
		keywright.WithTimeout(5*time.Second), keywright.WithSettleTime(20*time.Millisecond), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}))
	require.NoError(t, err)
	t.Cleanup(rc.CloseIdleConnections)
	v.job = rotation.Job{
		Name:     "job",
		Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
		Sinks:    []sink.Sink{sink.File(v.file(), sink.WithLag(0))},
		Policy:   rotation.Policy{SettleTime: 50 * time.Millisecond, Probes: 1},
	}
	return v
}

func (v *service) file() string { return filepath.Join(v.dir, "token") }

func (v *service) engine(t *testing.T, j rotation.Journal, opts ...rotation.Option) *rotation.Engine {
	e, err := rotation.Open("", append(opts, rotation.WithJournal(j), rotation.WithSealer(rotation.SealKeyFile(filepath.Join(v.dir, "sealing.key"))))...)
	require.NoError(t, err)
	return e
}

// token is the token that the service's readers have.
func (v *service) token(t *testing.T) string {
	b, err := os.ReadFile(v.file())
	require.NoError(t, err)
	return strings.TrimSpace(string(b))
}

func (v *service) accepted() []string {
	return append(v.fake.AcceptedTokens(1), v.fake.AcceptedTokens(2)...)
}

// A rotation from beginning to end, and the next one, leave a trail that holds,
// a history that can be read, and no token in the database.
func TestEngine(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		v := startService(t)
		s := d.open(t)
		recorder := s.Recorder()
		e := v.engine(t, s.Journal("w1"), rotation.WithObserver(recorder.Observe))
		tokens := []string{v.token(t)}
		for range 2 {
			r, err := e.Rotate(ctx, v.job)
			require.NoError(t, err)
			require.Equal(t, rotation.StateDone, r.State)
			require.NotContains(t, tokens, v.token(t))
			tokens = append(tokens, v.token(t))
		}
		require.Contains(t, v.accepted(), tokens[2])
		status, err := e.Status(ctx, "job")
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, status.State)
		assert.Equal(t, 2, status.Generation)
		var trail bytes.Buffer
		require.NoError(t, s.AuditTrail(ctx, "job", &trail))
		lines := bytes.Count(trail.Bytes(), []byte("\n"))
		n, err := rotation.CheckAudit(&trail)
		require.NoError(t, err)
		assert.Equal(t, lines, n)
		assert.Greater(t, n, 15)
		require.NoError(t, recorder.Close(ctx))
		events, err := s.Events(ctx, "job", 1000)
		require.NoError(t, err)
		assert.Equal(t, "DONE", events[0].To)
		assert.True(t, slices.ContainsFunc(events, func(e store.Event) bool { return e.Kind == store.KindSink && e.To == "confirmed" }))
		for _, table := range []string{"keywright_journal", "keywright_audit", "keywright_events", "keywright_reserve"} {
			rows, err := s.SQL().QueryContext(ctx, "SELECT * FROM "+table)
			require.NoError(t, err)
			columns, err := rows.Columns()
			require.NoError(t, err)
			for rows.Next() {
				values, places := make([]any, len(columns)), make([]any, len(columns))
				for i := range values {
					places[i] = &values[i]
				}
				require.NoError(t, rows.Scan(places...))
				for _, value := range values {
					b, ok := value.([]byte)
					if text, is := value.(string); is {
						b, ok = []byte(text), true
					}
					for _, token := range tokens {
						require.False(t, ok && bytes.Contains(b, []byte(token)), "%s holds a token", table)
					}
				}
			}
			require.NoError(t, errors.Join(rows.Err(), rows.Close()))
		}
	})
}

// stop is what happens to a run at one of its Saves.
type stop string

const (
	cancelBefore stop = "cancelled before"
	cancelAfter  stop = "cancelled after"
	dieBefore    stop = "dead before"
	dieAfter     stop = "dead after"
	stolen       stop = "taken over before"
)

// stoppedJournal stops runs at the Save of the given number.
type stoppedJournal struct {
	rotation.Journal
	store  *store.Store
	how    stop
	at     int
	cancel context.CancelFunc

	mu    sync.Mutex
	saves int
	dead  bool
}

var errDead = errors.New("the process is dead")

func (j *stoppedJournal) Begin(ctx context.Context, job string) (rotation.Session, error) {
	s, err := j.Journal.Begin(ctx, job)
	return &stoppedSession{s, j}, err
}

type stoppedSession struct {
	rotation.Session
	j *stoppedJournal
}

func (s *stoppedSession) Save(ctx context.Context, record []byte) error {
	j := s.j
	j.mu.Lock()
	defer j.mu.Unlock()
	j.saves++
	if j.dead {
		return errDead
	}
	if j.saves != j.at {
		return s.Session.Save(ctx, record)
	}
	switch j.how {
	case cancelBefore:
		j.cancel()
	case dieBefore:
		j.dead = true
		j.cancel()
		return errDead
	case stolen:
		if _, err := j.store.SQL().ExecContext(ctx, `UPDATE keywright_journal SET epoch = epoch + 1, session = '', owner = '', expires = NULL`); err != nil {
			return err
		}
	}
	err := s.Session.Save(ctx, record)
	if j.how == cancelAfter || j.how == dieAfter {
		j.cancel()
	}
	if j.how == dieAfter {
		j.dead = true
		return errDead
	}
	return err
}

func (s *stoppedSession) Append(ctx context.Context, line []byte) error {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	if s.j.dead {
		return errDead
	}
	return s.Session.Append(ctx, line)
}

// A run that is stopped at any of its Saves, in any way, is finished by the
// next, and its audit trail holds.
func TestEngineStopped(t *testing.T) {
	t.Parallel()
	for _, how := range []stop{cancelBefore, cancelAfter, dieBefore, dieAfter, stolen} {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, d database) {
				require.NoError(t, open(t, d).Close())
				empty := snapshot(t, d)
				for at := 1; ; at++ {
					if !soak && (at%2 == 0) == (d.kind == "sqlite") {
						continue // the other shows it
					}
					s := open(t, empty(t))
					stopped := testStoppedAt(t, s, how, at)
					require.NoError(t, s.Close())
					if !stopped {
						require.Greater(t, at, 8, "saves of a rotation")
						return
					}
				}
			})
		})
	}
}

func testStoppedAt(t *testing.T, s *store.Store, how stop, at int) (stopped bool) {
	v := startService(t)
	before := v.token(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j := &stoppedJournal{Journal: s.Journal("w1"), store: s, how: how, at: at, cancel: cancel}
	r, err := v.engine(t, j).Rotate(ctx, v.job)
	stopped = j.saves >= at
	switch {
	case how == stolen && stopped:
		require.ErrorIs(t, err, store.ErrFenced, "at %d", at)
	case stopped && err == nil:
		// After the last step there is nothing to stop.
	case !stopped:
		require.NoError(t, err)
		require.Equal(t, rotation.StateDone, r.State)
	}
	require.Contains(t, v.accepted(), v.token(t), "at %d", at)
	var status *rotation.Status
	for range 4 {
		e := v.engine(t, s.Journal("w2"))
		if status, err = e.Status(t.Context(), "job"); err == nil && status.State == rotation.StateDone {
			break
		}
		require.NoError(t, err)
		_, err = e.Rotate(t.Context(), v.job)
		require.NoError(t, err, "at %d", at)
	}
	require.Equal(t, rotation.StateDone, status.State, "at %d", at)
	require.Equal(t, 1, status.Generation, "at %d", at)
	require.NotEqual(t, before, v.token(t), "at %d", at)
	require.Contains(t, v.accepted(), v.token(t), "at %d", at)
	var trail bytes.Buffer
	require.NoError(t, s.AuditTrail(t.Context(), "job", &trail))
	_, err = rotation.CheckAudit(&trail)
	require.NoError(t, err, "at %d", at)
	return stopped
}

// Two engines on the same job, each on a store of its own: one rotates, the
// other is told that it is busy, over and over.
func TestEnginesFight(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		v := startService(t)
		stores := []*store.Store{d.open(t), d.open(t)}
		var group sync.WaitGroup
		done := make([]int, len(stores))
		for i, s := range stores {
			e := v.engine(t, s.Journal("w"))
			group.Go(func() {
				for done[i] < 3 {
					_, err := e.Rotate(ctx, v.job)
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
					done[i]++
				}
			})
		}
		group.Wait()
		status, err := v.engine(t, stores[0].Journal("w")).Status(ctx, "job")
		require.NoError(t, err)
		assert.Equal(t, 6, status.Generation)
		assert.Contains(t, v.accepted(), v.token(t))
		var trail bytes.Buffer
		require.NoError(t, stores[1].AuditTrail(ctx, "job", &trail))
		_, err = rotation.CheckAudit(&trail)
		require.NoError(t, err)
	})
}
