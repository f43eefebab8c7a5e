package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// spoilt is a scene in which somebody breaks what the sinks hold.
func spoilt(t *testing.T, s strategyName, f func(t *testing.T, w *world), variant ...keywrighttest.Option) {
	t.Helper()
	scene(t, s, func(t *testing.T, w *world) {
		w.loose = true
		f(t, w)
	}, variant...)
}

// unasked leaves it to the strategy whether a token is accepted.
func unasked(j *rotation.Job) { j.Verify = nil }

// put writes a token into both sinks, as a person would.
func (w *world) put(token string) {
	w.disk.WriteFile(w.sinks[0], []byte(token+"\n"), 0o600)
	w.disk.WriteFile(w.sinks[1], []byte("TOKEN="+token+"\n"), 0o600)
	clear(w.held)
}

// serves asserts that the provider accepts what both sinks hold.
func (w *world) serves(t *testing.T) {
	t.Helper()
	tokens := w.inSinks()
	assert.Equal(t, tokens[0], tokens[1])
	assert.Contains(t, w.accepted(), tokens[0])
}

// status is what the journal says.
func (w *world) status(t *testing.T) *rotation.Status {
	t.Helper()
	s, err := w.start(t.Context(), 0).engine().Status(t.Context(), "app")
	require.NoError(t, err)
	return s
}

// forced returns when rotations were forced.
func (w *world) forced() (at []time.Time) {
	for _, c := range w.sent {
		if c.forced {
			at = append(at, c.at)
		}
	}
	return at
}

// stuckIn asserts that a person is needed, and where it goes on.
func stuckIn(t *testing.T, state rotation.State, err error) {
	t.Helper()
	var stuck *rotation.StuckError
	require.ErrorAs(t, err, &stuck)
	assert.Equal(t, state, stuck.State)
	assert.NotEmpty(t, stuck.Steps)
}

// create makes a credential beside the one that is rotated.
func (w *world) create(t *testing.T, name, more string) (id, token string) {
	t.Helper()
	var made struct{ ID, Token string }
	require.NoError(t, json.Unmarshal(w.ask("POST", "/api/v1/credentials/", `{"application_id":"`+w.aceData.ApplicationID()+`","name":"`+name+`"`+more+`}`), &made))
	require.NotEmpty(t, made.Token)
	return made.ID, made.Token
}

// damage spoils the latest record of the journal.
func (w *world) damage(t *testing.T) {
	t.Helper()
	b, ok := w.disk.ReadFile("/state/app/state")
	require.True(t, ok)
	b[len(b)/3] ^= 0x40
	b[100] ^= 0x40
	w.disk.WriteFile("/state/app/state", b, 0o600)
}

// killedBy returns a fault that kills a process when its call has arrived.
func killedBy(p *process, f keywrighttest.Fault) keywrighttest.Fault {
	f.Do, f.Status = keywrighttest.Answer, http.StatusBadGateway
	f.Edit = func(b []byte) []byte {
		p.disk.Kill()
		p.cancel()
		return b
	}
	return f
}

// The sinks would be given a token that nobody accepts, and the good one would
// be retired.
func TestRollbackNeedsTheOldToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		strategy strategyName
		kill     func(w *world)
	}{
		"expired": {swap, func(w *world) {
			w.ask("PATCH", "/api/v1/credentials/"+string(w.first), `{"expired_at":"1999-01-01T00:00:00Z"}`)
		}},
		"deleted": {swap, func(w *world) { w.aceData.RemoveCredential(string(w.first)) }},
		"blocked": {paired, func(w *world) { w.ricloud.SetKeyState(1, "blocked") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spoilt(t, c.strategy, func(t *testing.T, w *world) {
				stopAt(t, w, rotation.StateConverging, unasked)
				fresh := w.inSinks()
				c.kill(w)
				_, err := w.do(t, rollback, unasked)
				require.ErrorIs(t, err, rotation.ErrNoWayBack)
				assert.Equal(t, fresh, w.inSinks())
				w.serves(t)
				r, err := w.do(t, resume, unasked)
				require.NoError(t, err)
				assert.Equal(t, rotation.StateDone, r.State)
				w.serves(t)
			})
		})
	}
}

// The old credential would live for ever: each run would begin to watch it
// anew.
func TestIdleIsWatchedAcrossRuns(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{-1, 8 * time.Second} {
		scene(t, swap, func(t *testing.T, w *world) {
			runs := 0
			for {
				runs++
				require.Less(t, runs, 10)
				r, err := w.do(t, rotate, func(j *rotation.Job) { j.Policy.MaxWait = limit })
				require.NoError(t, err)
				if r.ResumeAt.IsZero() {
					assert.Equal(t, rotation.StateDone, r.State)
					break
				}
				pass(t.Context(), time.Minute)
			}
			assert.NotContains(t, w.accepted(), w.held[w.sinks[0]][0])
		})
	}
}

// A sink that never gets the token would go unnoticed until the overlap is
// over, if every run ends before the step has failed for long enough.
func TestFailureOutlivesPauses(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		down := func(j *rotation.Job) {
			j.Policy.MaxWait = -1
			j.Sinks[1] = sink.Func("hook", sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error { return sink.ErrTemporary }, nil)
		}
		start := time.Now()
		var err error
		for err == nil {
			require.Less(t, time.Since(start), time.Hour, "the overlap would be over")
			var r *rotation.Result
			if r, err = w.do(t, rotate, down); err == nil {
				require.False(t, r.ResumeAt.IsZero())
				assert.Contains(t, w.status(t).Problem, "hook")
			}
			pass(t.Context(), time.Minute)
		}
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.ErrorIs(t, err, sink.ErrTemporary)
		assert.GreaterOrEqual(t, time.Since(start), 10*time.Minute, "what is down for a while is waited for")
	})
}

// A roll-back that waits would be turned into a rotation by the next run.
func TestRollbackStaysARollback(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		old := w.inSinks()
		w.inject(keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Drop})
		stopAt(t, w, rotation.StateResolving, nil)
		r, err := w.do(t, rollback, func(j *rotation.Job) { j.Policy.MaxWait = -1 })
		require.NoError(t, err)
		require.False(t, r.ResumeAt.IsZero())
		pass(t.Context(), 2*time.Minute)
		r, err = w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateIdle, r.State)
		assert.Equal(t, old, w.inSinks())
		assert.Zero(t, w.applied())
	})
}

// The sinks of one key would get the token of another, and the key that was
// rotated would be forgotten.
func TestJournalBelongsToItsKey(t *testing.T) {
	t.Parallel()
	t.Run("overlap", func(t *testing.T) {
		t.Parallel()
		scene(t, overlap, func(t *testing.T, w *world) {
			w.ricloud.AddKeys(1)
			old := w.inSinks()
			other := func(j *rotation.Job) {
				s := j.Strategy.(rotation.RicloudOverlap)
				s.Key = 2
				j.Strategy = s
			}
			w.inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
			stopAt(t, w, rotation.StateResolving, nil)
			for _, verb := range []func(*rotation.Engine, context.Context, rotation.Job) (*rotation.Result, error){resume, rotate, rollback} {
				_, err := w.do(t, verb, other)
				require.ErrorIs(t, err, rotation.ErrRefused)
				require.True(t, refusedFor(err, rotation.ReasonUnfinished), err)
			}
			assert.Equal(t, old, w.inSinks())
			_, err := w.do(t, resume, nil)
			require.NoError(t, err)
			assert.Equal(t, w.ricloud.TokenOf(1), w.inSinks()[0])
			_, err = w.do(t, rotate, other)
			require.True(t, refusedFor(err, rotation.ReasonJob), err)
			assert.Len(t, w.sent, 1)
		})
	})
	t.Run("in place", func(t *testing.T) {
		t.Parallel()
		scene(t, inPlace, func(t *testing.T, w *world) {
			stopAt(t, w, rotation.StateIssued, nil)
			old := w.inSinks()
			id, _ := w.create(t, "other", "")
			_, err := w.do(t, resume, func(j *rotation.Job) {
				s := j.Strategy.(rotation.AceDataInPlace)
				s.Credential = keywright.CredentialID(id)
				j.Strategy = s
			})
			require.True(t, refusedFor(err, rotation.ReasonUnfinished), err)
			assert.Equal(t, old, w.inSinks())
			_, err = w.do(t, resume, nil)
			require.NoError(t, err)
			w.serves(t)
		})
	})
	t.Run("swap", func(t *testing.T) {
		t.Parallel()
		spoilt(t, swap, func(t *testing.T, w *world) {
			_, err := w.do(t, rotate, unasked)
			require.NoError(t, err)
			inUse := w.inSinks()[0]
			id, token := w.create(t, "other", "")
			w.put(token)
			sent := len(w.sent)
			_, err = w.do(t, rotate, func(j *rotation.Job) {
				j.Verify = nil
				s := j.Strategy.(rotation.AceDataSwap)
				s.Credential = keywright.CredentialID(id)
				j.Strategy = s
			})
			require.True(t, refusedFor(err, rotation.ReasonJob), err)
			assert.Len(t, w.sent, sent)
			assert.Contains(t, w.accepted(), inUse)
			assert.Contains(t, w.accepted(), token)
		}, keywrighttest.WithMaskedTokens())
	})
}

// What somebody else wrote would be overwritten, where the provider does not
// show which token is in use.
func TestMaskedDriftIsRefused(t *testing.T) {
	t.Parallel()
	for name, foreign := range map[string]func(w *world) string{
		"no token of ours":  func(*world) string { return strings.Repeat("somebody-else-", 5) },
		"another key's own": func(w *world) string { w.ricloud.AddKeys(1); return w.ricloud.TokenOf(3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spoilt(t, paired, func(t *testing.T, w *world) {
				_, err := w.do(t, rotate, nil) // the journal knows the token in use
				require.NoError(t, err)
				token := foreign(w)
				w.put(token)
				sent := len(w.sent)
				_, err = w.do(t, rotate, nil)
				require.True(t, refusedFor(err, rotation.ReasonDrift), err)
				assert.Equal(t, []string{token, token}, w.inSinks())
				assert.Len(t, w.sent, sent)
			}, keywrighttest.WithMaskedTokens())
		})
	}
}

// The token that was replaced would be delivered as the newest, because a
// machine of the provider was behind, and lapse in six hours.
func TestAdoptsNoTokenFromBefore(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		stopAt(t, w, rotation.StateIssued, nil)
		fresh := w.ricloud.Token()
		w.inject(keywrighttest.Fault{Op: "key.current", When: keywrighttest.AfterApply, Times: -1, Edit: func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), fresh, old))
		}})
		_, err := w.do(t, resume, nil)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		assert.Equal(t, rotation.StateIssued, w.status(t).State)
		w.clear()
		_, err = w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, []string{fresh, fresh}, w.inSinks())
		pass(t.Context(), 7*time.Hour)
		w.serves(t)
	})
}

// The rotation would hang for a year, after one start with a wrong local clock.
func TestWrongClockOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		c := newBadClock()
		c.shift = -365 * 24 * time.Hour
		p := w.start(t.Context(), 0)
		e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithClock(c), rotation.WithObserver(func(v rotation.Event) {
			if s, ok := v.(rotation.StateChanged); ok && s.To == rotation.StateIntent {
				p.disk.Kill()
				p.cancel()
			}
		}))
		require.NoError(t, err)
		_, err = e.Rotate(p.ctx, p.job())
		require.Error(t, err)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		r, err := w.start(ctx, 0).rotate() // the clock has been set meanwhile
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		assert.Less(t, time.Since(start), 5*time.Minute)
	})
}

// The key would be rotated twice, and its token in use dropped: an answer with
// a wrong date must not cut short the wait for a call that may still arrive.
func TestWrongDateCutsNoSettling(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		w.inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.LateApply, Do: keywrighttest.Drop, Delay: 20 * time.Second})
		w.inject(keywrighttest.Fault{
			Op: "key.retrieve", When: keywrighttest.AfterApply, Times: 3,
			Header: http.Header{"Date": {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}},
		})
		_, err := w.do(t, rotate, nil)
		require.NoError(t, err)
		assert.Equal(t, 1, w.applied())
		w.serves(t)
	})
}

// The old key would be burnt while readers still use it.
func TestWrongDateCutsNoLag(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		long := func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Hour)) }
		stopAt(t, w, rotation.StateDistributing, long)
		c := newBadClock()
		slept := 0
		c.onSleep = func() {
			if slept++; slept == 1 {
				c.shift += 5 * time.Second // so that it asks
				w.inject(keywrighttest.Fault{
					Op: "key.current", When: keywrighttest.AfterApply, Times: -1,
					Header: http.Header{"Date": {time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat)}},
				})
			}
		}
		start := time.Now()
		require.NoError(t, w.with(t, c, long))
		require.NotEmpty(t, w.forced())
		assert.GreaterOrEqual(t, w.forced()[0].Sub(start), time.Hour-time.Minute)
	})
}

// A token that was issued would not be in the journal, although room was made
// for it.
func TestReserveIsForTheToken(t *testing.T) {
	t.Parallel()
	t.Run("audit trail is full", func(t *testing.T) {
		t.Parallel()
		scene(t, swap, func(t *testing.T, w *world) {
			p := w.start(t.Context(), 0)
			defer p.cancel()
			full := 0
			p.disks = func(op, name string, after bool) error {
				if !after && op == "write" && strings.HasSuffix(name, "audit.jsonl") && w.aceData.Applied("credential.create") > 1 {
					full++
					return syscall.ENOSPC
				}
				return nil
			}
			_, err := p.engine().Rotate(p.ctx, p.job())
			require.NoError(t, err)
			assert.Positive(t, full)
			assert.Equal(t, rotation.StateDone, w.status(t).State)
		})
	})
	t.Run("a record comes between", func(t *testing.T) {
		t.Parallel()
		scene(t, overlap, func(t *testing.T, w *world) {
			w.inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
			p := w.start(t.Context(), 0)
			defer p.cancel()
			full := 0
			p.disks = func(op, name string, after bool) error {
				if !after && op == "create" && w.applied() > 0 && strings.HasPrefix(name, "/state/") {
					full++
					return syscall.ENOSPC
				}
				return nil
			}
			_, err := p.engine().Rotate(p.ctx, p.job())
			var unsaved *rotation.UnsavedError
			require.False(t, errors.As(err, &unsaved), err)
			assert.Positive(t, full)
			p.cancel()
			_, err = w.do(t, resume, nil)
			require.NoError(t, err)
			assert.Equal(t, 1, w.applied())
			w.serves(t)
		})
	})
}

// A sink that is added meanwhile would never get the token; one that is left
// out would be forgotten, and its readers with it.
func TestSinksStayTheSame(t *testing.T) {
	t.Parallel()
	long := func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Hour)) }
	for name, change := range map[string]func(*rotation.Job){
		"added, and cannot be read": func(j *rotation.Job) {
			j.Sinks = append(j.Sinks, sink.Func("hook", sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error { return nil }, nil))
		},
		"added, and holds something": func(j *rotation.Job) { j.Sinks = append(j.Sinks, sink.File("/app/third")) },
		"removed":                    func(j *rotation.Job) { j.Sinks = j.Sinks[:1] },
		"another":                    func(j *rotation.Job) { j.Sinks[1] = sink.File("/app/third") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene(t, paired, func(t *testing.T, w *world) {
				w.disk.WriteFile("/app/third", []byte(strings.Repeat("third", 8)+"\n"), 0o600)
				old := w.inSinks()[0]
				stopAt(t, w, rotation.StateConverging, long)
				delivered := time.Now()
				pass(t.Context(), time.Minute)
				_, err := w.do(t, resume, func(j *rotation.Job) { long(j); change(j) })
				stuckIn(t, rotation.StateConverging, err)
				assert.ErrorContains(t, err, "other sinks than when it began")
				assert.Contains(t, w.accepted(), old, "nothing is retired")
				_, err = w.do(t, resume, long)
				require.NoError(t, err)
				require.NotEmpty(t, w.forced())
				assert.GreaterOrEqual(t, w.forced()[0].Sub(delivered), time.Hour-2*time.Second)
			})
		})
	}
}

// The job would be locked until the program ends.
func TestPanicGivesTheLockUp(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		p := w.start(t.Context(), 0)
		defer p.cancel()
		e, job := p.engine(), p.job()
		bad := job
		bad.Verify = func(context.Context, keywright.Secret) error { panic("a bug in a callback") }
		assert.PanicsWithValue(t, "a bug in a callback", func() { _, _ = e.Rotate(p.ctx, bad) })
		r, err := e.Resume(p.ctx, job)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
	})
}

// The program would die of an answer without an expiry, in the middle of a
// rotation.
func TestTrialOverAndNoExpiryShown(t *testing.T) {
	t.Parallel()
	scene(t, swap, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateIssued, unasked)
		pass(t.Context(), 2*time.Hour)
		w.inject(keywrighttest.Fault{Op: "credential.update", When: keywrighttest.AfterApply, Edit: func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"expired_at":"`, `"x_expired":"`, 1))
		}})
		r, err := w.do(t, resume, unasked)
		require.NoError(t, err)
		require.NoError(t, w.over(r))
	})
}

// unfiltered drops the filter of names, as a server that does not know it.
type unfiltered struct{ http.RoundTripper }

func (u unfiltered) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	for k := range q {
		if strings.HasPrefix(k, "name") {
			q.Del(k)
		}
	}
	r = r.Clone(r.Context())
	r.URL.RawQuery = q.Encode()
	return u.RoundTripper.RoundTrip(r)
}

// The credential in use would be taken for a leftover and deleted, before any
// sink has another token.
func TestResolveSparesTheCredentialInUse(t *testing.T) {
	t.Parallel()
	scene(t, swap, func(t *testing.T, w *world) {
		_, err := w.do(t, rotate, unasked) // the one in use carries the journal's marker
		require.NoError(t, err)
		pass(t.Context(), time.Hour)
		w.inject(keywrighttest.Fault{Op: "credential.create", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
		p := w.start(t.Context(), 0)
		defer p.cancel()
		ac, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithHTTPClient(&http.Client{Transport: unfiltered{p}}),
			keywright.WithBaseURL("http://127.0.0.1"), keywright.WithToken(w.aceData.Token()))
		require.NoError(t, err)
		issued := false
		e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
			if s, ok := v.(rotation.StateChanged); ok && s.To == rotation.StateIssued {
				issued = true
				assert.Contains(t, w.accepted(), w.inSinks()[0])
				assert.Len(t, w.credentials(), 2)
			}
		}))
		require.NoError(t, err)
		job := p.job()
		job.Verify = nil
		job.Strategy = rotation.AceDataSwap{Client: ac, Credential: w.first, IdleFor: 10 * time.Second}
		_, err = e.Rotate(p.ctx, job)
		require.NoError(t, err)
		assert.True(t, issued)
		w.serves(t)
	})
}

// The old token would stay accepted for ever, because the provider said "not
// found" to the call that should have ended it.
func TestBurnNotFound(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		stopAt(t, w, rotation.StateConverging, nil)
		w.inject(keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Answer, Status: 404, Body: `{"error":"not-found","message":"no"}`, Times: -1})
		_, err := w.do(t, resume, nil)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		assert.Equal(t, rotation.StateRetiring, w.status(t).State)
		assert.Contains(t, w.accepted(), old)
		w.clear()
		_, err = w.do(t, resume, nil)
		require.NoError(t, err)
		assert.NotContains(t, w.accepted(), old)
		w.serves(t)
	})
}

// The job would be wedged when somebody has rotated the key and has mended the
// sinks.
func TestForeignRotationMendedByHand(t *testing.T) {
	t.Parallel()
	spoilt(t, overlap, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateConverging, nil)
		w.ask("POST", "/keys/1/rotate", "{}")
		w.put(w.ricloud.Token())
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		assert.Equal(t, w.ricloud.Token(), w.inSinks()[0])
		w.serves(t)
		pass(t.Context(), 7*time.Hour)
		_, err = w.do(t, rotate, nil)
		require.NoError(t, err)
		w.serves(t)
	})
}

// careless is an error of a job that repeats what it was given.
type careless struct{ text string }

func (e *careless) Error() string { return e.text }
func (e *careless) Unwrap() error { return rotation.ErrNotAccepted }

// The token would be in the journal, in the audit trail and in logs.
func TestCallbackRepeatsTheToken(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		_, err := w.do(t, rotate, func(j *rotation.Job) {
			j.Verify = func(_ context.Context, token keywright.Secret) error {
				return &careless{"Get https://x/?token=" + token.Reveal() + ": refused"}
			}
		})
		stuckIn(t, rotation.StateIssued, err)
		require.ErrorIs(t, err, rotation.ErrNotAccepted)
		token := w.ricloud.TokenOf(2)
		assert.NotContains(t, err.Error(), token)
		assert.ErrorContains(t, err, "token=[REDACTED]: refused")
		var leak *careless
		assert.False(t, errors.As(err, &leak), "it can be printed through the error")
		for _, name := range []string{"state", "state.prev", "audit.jsonl"} {
			b, ok := w.disk.ReadFile("/state/app/" + name)
			require.True(t, ok, name)
			assert.NotContains(t, string(b), token, name)
		}
	})
}

// A log would have half of what is wrong.
func TestStuckErrorIsOneLine(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		_, err := w.do(t, rotate, func(j *rotation.Job) {
			for _, name := range []string{"one", "two"} {
				j.Sinks = append(j.Sinks, sink.Func(name, sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error {
					return errors.New(name + " fails")
				}, nil))
			}
		})
		stuckIn(t, rotation.StateDistributing, err)
		require.ErrorContains(t, err, "one fails; ")
		require.ErrorContains(t, err, "two fails")
		assert.NotContains(t, err.Error(), "\n")
	})
}

// The token that the sinks hold would be burnt: much may have happened since an
// earlier run has looked.
func TestRetiringLooksAgain(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		stopAt(t, w, rotation.StateRetiring, nil)
		w.put(old)
		pass(t.Context(), 24*time.Hour)
		for range w.sinks {
			_, err := w.do(t, resume, nil)
			stuckIn(t, rotation.StateDistributing, err)
			require.ErrorIs(t, err, sink.ErrConflict)
			assert.Empty(t, w.forced())
			assert.Contains(t, w.accepted(), old)
		}
		_, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.NotContains(t, w.accepted(), old)
		w.serves(t)
	})
}

// People would believe that nothing has changed, while the service is down: an
// attempt before this one may have replaced a token that nobody can see.
func TestInPlaceMaskedIsInDoubt(t *testing.T) {
	t.Parallel()
	scene(t, inPlace, func(t *testing.T, w *world) {
		w.inject(keywrighttest.Fault{Op: "credential.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
		w.inject(keywrighttest.Fault{Op: "credential.rotate", Do: keywrighttest.Answer, Status: 403, Body: `{"detail":"no","code":"permission_denied"}`})
		_, err := w.do(t, rotate, unasked)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.NotErrorIs(t, err, rotation.ErrNotIssued)
		assert.Equal(t, rotation.StateResolving, w.status(t).State)
		r, err := w.do(t, resume, unasked)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
	}, keywrighttest.WithMaskedTokens())
}

// rejecting is a provider whose new tokens are never accepted.
type rejecting struct{ toyStrategy }

func (rejecting) Verify(context.Context, *rotation.Operation) error { return rotation.ErrNotAccepted }

// A fleet would rotate all its keys although the canary's new token is refused:
// the canary waits, and has not failed yet.
func TestFleetWaitsForItsCanary(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		p := w.start(t.Context(), 0)
		defer p.cancel()
		toys := []*toy{newToy("a"), newToy("b"), newToy("c")}
		f := rotation.Fleet{Engine: p.engine(), Canaries: 1}
		r, err := f.Run(t.Context(), func(yield func(rotation.Job) bool) {
			for i, y := range toys {
				name := "job-" + strconv.Itoa(i)
				if !yield(rotation.Job{
					Name: name, Strategy: rejecting{toyStrategy{y}}, Sinks: []sink.Sink{sink.File("/app/" + name)}, Policy: rotation.Policy{MaxWait: -1},
				}) {
					return
				}
			}
		})
		require.NoError(t, err)
		assert.Equal(t, 1, r.Waiting)
		assert.True(t, r.Stopped)
		assert.False(t, r.Resume.IsZero())
		assert.Equal(t, 1, toys[0].issued)
		assert.Zero(t, toys[1].issued+toys[2].issued)
	})
}

// campaign runs the world's job as a fleet, and is killed at a state.
func (w *world) campaign(t *testing.T, name string, stop rotation.State) (*rotation.FleetResult, error) {
	t.Helper()
	p := w.start(t.Context(), 0)
	defer p.cancel()
	e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
		if s, ok := v.(rotation.StateChanged); ok && s.To == stop {
			p.disk.Kill()
			p.cancel()
		}
	}))
	require.NoError(t, err)
	f := rotation.Fleet{Engine: e, Campaign: name}
	return f.Run(p.ctx, func(yield func(rotation.Job) bool) { yield(p.job()) })
}

// A key that was rolled back would be counted as rotated, and keep its old
// token.
func TestCampaignCountsNoRollback(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateConverging, nil)
		clear(w.held)
		p := w.start(t.Context(), 0)
		e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
			if s, ok := v.(rotation.StateChanged); ok && s.To == rotation.StateRollingBack {
				p.cancel()
			}
		}))
		require.NoError(t, err)
		_, err = e.Rollback(p.ctx, p.job())
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		r, err := w.campaign(t, "x", "none")
		require.ErrorIs(t, err, rotation.ErrNotIssued)
		assert.Zero(t, r.Done)
		assert.Equal(t, 1, r.Failed)
		assert.Equal(t, rotation.StateRolledBack, w.status(t).State)
		clear(w.held)
		r, err = w.campaign(t, "x", "none")
		require.NoError(t, err)
		assert.Equal(t, 1, r.Done)
		assert.Equal(t, rotation.StateDone, w.status(t).State)
	})
}

// A key would be rotated twice: what one campaign has begun and another has
// finished belongs to the second.
func TestCampaignOwnsWhatItFinishes(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		_, err := w.campaign(t, "a", rotation.StateConverging)
		require.Error(t, err)
		r, err := w.campaign(t, "b", "none")
		require.NoError(t, err)
		assert.Equal(t, 1, r.Done)
		token, sent := w.inSinks()[0], len(w.sent)
		r, err = w.campaign(t, "b", "none")
		require.NoError(t, err)
		assert.Equal(t, 1, r.Done)
		assert.Equal(t, token, w.inSinks()[0])
		assert.Len(t, w.sent, sent)
	})
}

// A program that only looks would go on with another token.
func TestPlanHandsNothingOver(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateConverging, nil)
		mine := keywright.NewSecret(strings.Repeat("mine", 9))
		self := keywright.NewRotatingToken(mine)
		p := w.start(t.Context(), 0)
		defer p.cancel()
		job := p.job()
		job.Self = self
		plan, err := p.engine().Plan(t.Context(), job)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateConverging, plan.Resumes)
		token, err := self.Token(t.Context())
		require.NoError(t, err)
		assert.True(t, token.Equal(mine))
	})
}

// The new credential, the only one that is left, would expire unseen: the old
// one was deleted by somebody while nobody knew whether there was a new one.
func TestResolvesWithoutTheOldCredential(t *testing.T) {
	t.Parallel()
	spoilt(t, swap, func(t *testing.T, w *world) {
		w.inject(keywrighttest.Fault{Op: "credential.create", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
		stopAt(t, w, rotation.StateResolving, unasked)
		w.aceData.RemoveCredential(string(w.first))
		r, err := w.do(t, resume, unasked)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
		pass(t.Context(), 2*time.Hour)
		w.serves(t)
		_, err = w.do(t, rotate, unasked)
		require.NoError(t, err)
		w.serves(t)
	})
}

// People who look at a job while it is rotated would see a state from before,
// or none.
func TestPeekBesideSave(t *testing.T) {
	t.Parallel()
	j := rotation.NewDirJournal(t.TempDir() + "/j")
	s, err := j.Begin(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), []byte("0")))
	saved := make(chan error)
	go func() {
		defer close(saved)
		for i := 1; i <= 300; i++ {
			if err := s.Save(t.Context(), []byte(strconv.Itoa(i))); err != nil {
				saved <- err
				return
			}
		}
	}()
	for last, looks := 0, 0; ; looks++ {
		select {
		case err := <-saved:
			require.NoError(t, err)
			assert.Positive(t, looks)
			require.NoError(t, s.Close())
			return
		default:
		}
		b, err := j.Peek(t.Context(), "a")
		if !assert.NoError(t, err) {
			break
		}
		n, err := strconv.Atoi(string(b))
		if !assert.NoError(t, err) || !assert.GreaterOrEqual(t, n, last) {
			break
		}
		last = n
	}
	for range saved { //nolint:revive // until it is over
	}
}

// A burnt token would be put back into the sinks: the record that said so is
// damaged.
func TestDamagedRetiringGoesForward(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		p := w.start(t.Context(), 0)
		p.disks = func(string, string, bool) error {
			if len(w.forced()) > 0 { // it is burnt: nothing can be written any more
				return syscall.EIO
			}
			return nil
		}
		_, err := p.engine().Rotate(p.ctx, p.job())
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		p.cancel()
		require.Equal(t, rotation.StateRetiring, w.status(t).State)
		w.damage(t)
		_, err = w.do(t, rollback, nil)
		require.ErrorIs(t, err, rotation.ErrNoWayBack)
		w.serves(t)
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
	})
}

// failingSealer seals nothing while it is down.
type failingSealer struct {
	rotation.Sealer
	down *bool
}

var errSealer = errors.New("the key service is down")

func (f failingSealer) Seal(ctx context.Context, plain []byte, label string) ([]byte, error) {
	if *f.down {
		return nil, errSealer
	}
	return f.Sealer.Seal(ctx, plain, label)
}

// One token after the other would be issued, and lost, while none can be kept.
func TestNoTokenThatCannotBeKept(t *testing.T) {
	t.Parallel()
	scene(t, inPlace, func(t *testing.T, w *world) {
		down := false
		p := w.start(t.Context(), 0)
		defer p.cancel()
		e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithSealer(failingSealer{rotation.SealKeyFile("/state/k"), &down}),
			rotation.WithObserver(func(v rotation.Event) {
				if s, ok := v.(rotation.StateChanged); ok && s.To == rotation.StateIntent {
					down = true
				}
			}))
		require.NoError(t, err)
		job := p.job()
		job.Verify = nil
		_, err = e.Rotate(p.ctx, job)
		var unsaved *rotation.UnsavedError
		require.ErrorAs(t, err, &unsaved)
		require.ErrorIs(t, err, errSealer)
		assert.Contains(t, w.accepted(), unsaved.Token.Reveal())
		require.Equal(t, 1, w.applied())
		for range 3 {
			_, err = e.Rotate(p.ctx, job)
			require.ErrorIs(t, err, errSealer)
		}
		assert.Equal(t, 1, w.applied())
	}, keywrighttest.WithMaskedTokens())
}

// The token that was just issued would be burnt by a call of the rotation, or
// of the run, before, which arrives late.
func TestLateBurnHitsNoNewToken(t *testing.T) {
	t.Parallel()
	late := keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.LateApply, Delay: 30 * time.Second}
	lost := late
	lost.Do = keywrighttest.Drop
	for name, before := range map[string]func(t *testing.T, w *world){
		"the answer is lost": func(t *testing.T, w *world) {
			w.inject(lost)
			_, err := w.do(t, resume, nil)
			require.NoError(t, err)
		},
		"killed while retiring": func(t *testing.T, w *world) {
			p := w.start(t.Context(), 0)
			w.inject(killedBy(p, late))
			_, err := p.engine().Resume(p.ctx, p.job())
			require.Error(t, err)
			require.Equal(t, rotation.StateRetiring, w.status(t).State)
			_, err = w.do(t, resume, nil)
			require.NoError(t, err)
		},
		"rolled back, and the answer is lost": func(t *testing.T, w *world) {
			clear(w.held)
			w.inject(lost)
			_, err := w.do(t, rollback, nil)
			require.NoError(t, err)
			clear(w.held)
		},
		"killed while rolling back": func(t *testing.T, w *world) {
			clear(w.held)
			p := w.start(t.Context(), 0)
			w.inject(killedBy(p, late))
			_, err := p.engine().Rollback(p.ctx, p.job())
			require.Error(t, err)
			require.Equal(t, rotation.StateRollingBack, w.status(t).State)
			_, err = w.do(t, resume, nil)
			require.NoError(t, err)
			clear(w.held)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene(t, paired, func(t *testing.T, w *world) {
				stopAt(t, w, rotation.StateConverging, nil)
				before(t, w)
				require.Len(t, w.forced(), 2, "the one that is late, and one that was answered")
				require.Less(t, time.Since(w.forced()[0]), 30*time.Second, "it is still to come")
				// The token that it is authenticated with lives on for a while.
				_, err := w.do(t, rotate, func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Hour)) })
				require.NoError(t, err)
				pass(t.Context(), 2*time.Minute)
				require.NoError(t, w.problem)
				w.serves(t)
			})
		})
	}
}

// Access that is there would not be found: the token in the journal is refused,
// and only another sink holds a good one.
func TestResolvesWithATokenOfAnotherSink(t *testing.T) {
	t.Parallel()
	spoilt(t, overlap, func(t *testing.T, w *world) {
		w.inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
		stopAt(t, w, rotation.StateResolving, nil)
		w.ask("POST", "/keys/1/rotate", `{"force":true}`)
		require.NotContains(t, w.accepted(), w.inSinks()[0])
		w.disk.WriteFile(w.sinks[1], []byte("TOKEN="+w.ricloud.TokenOf(1)+"\n"), 0o600)
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
	})
}

// A token would be put where somebody has taken it out on purpose.
func TestEmptiedSinkIsAConflict(t *testing.T) {
	t.Parallel()
	spoilt(t, paired, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		stopAt(t, w, rotation.StateVerified, nil)
		w.disk.WriteFile(w.sinks[1], []byte("OTHER=1\n"), 0o600)
		_, err := w.do(t, resume, nil)
		stuckIn(t, rotation.StateDistributing, err)
		require.ErrorIs(t, err, sink.ErrConflict)
		b, _ := w.disk.ReadFile(w.sinks[1])
		assert.Equal(t, "OTHER=1\n", string(b))
		assert.Contains(t, w.accepted(), old)
	})
}

// deaf is a sink that says yes to every write and drops what it is told to.
type deaf struct {
	versioned
	drops bool
}

func (d *deaf) CompareAndWrite(ctx context.Context, previous sink.Reading, token keywright.Secret) error {
	if d.drops {
		return nil
	}
	return d.versioned.CompareAndWrite(ctx, previous, token)
}

func (d *deaf) Confirm(_ context.Context, token keywright.Secret) error {
	if d.token != token.Reveal() {
		return sink.ErrConflict
	}
	return nil
}

// The old token would be retired, and the readers of a sink that drops what is
// written to it would never have had the new one.
func TestDroppedWriteIsFoundOut(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		box := &deaf{drops: true}
		with := func(j *rotation.Job) { j.Sinks = append(j.Sinks, box) }
		_, err := w.do(t, rotate, with)
		stuckIn(t, rotation.StateDistributing, err)
		require.ErrorIs(t, err, sink.ErrConflict)
		assert.Contains(t, w.accepted(), old)
		assert.Empty(t, w.forced())
		box.drops, box.version = false, "mended"
		_, err = w.do(t, resume, with)
		require.NoError(t, err)
		assert.Equal(t, w.inSinks()[0], box.token)
		assert.NotContains(t, w.accepted(), old)
	})
}

// After a power cut the sink would hold the burnt token: the write that was
// found there had not reached the disk.
func TestFoundTokenIsMadeDurable(t *testing.T) {
	t.Parallel()
	spoilt(t, paired, func(t *testing.T, w *world) {
		one := func(j *rotation.Job) { j.Sinks = j.Sinks[:1] }
		old := w.inSinks()[0]
		p := w.start(t.Context(), 0)
		p.disks = func(op, name string, after bool) error {
			if op == "rename" && name == w.sinks[0] && after {
				p.disk.Kill()
				p.cancel()
			}
			return nil
		}
		job := p.job()
		one(&job)
		_, err := p.engine().Rotate(p.ctx, job)
		require.Error(t, err)
		require.NotEqual(t, old, w.inSinks()[0], "it is there, for whoever looks")
		_, err = w.do(t, resume, one)
		require.NoError(t, err)
		require.NotContains(t, w.accepted(), old)
		states := 0
		for disk := range w.disk.CrashStates() {
			states++
			b, _ := disk.ReadFile(w.sinks[0])
			assert.Contains(t, w.accepted(), strings.TrimSpace(string(b)))
		}
		assert.Positive(t, states)
	})
}

// The old token would be retired after the new one was: nothing would work.
func TestRevokedWhileConverging(t *testing.T) {
	t.Parallel()
	for s, revoke := range map[strategyName]func(w *world, token string){
		paired: func(w *world, _ string) { w.ricloud.SetKeyState(2, "blocked") },
		swap: func(w *world, token string) {
			for _, c := range w.credentials() {
				if w.aceData.AcceptedTokens(c.ID)[0] == token {
					w.aceData.RemoveCredential(c.ID)
				}
			}
		},
	} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			spoilt(t, s, func(t *testing.T, w *world) {
				old := w.inSinks()[0]
				stopAt(t, w, rotation.StateConverging, unasked)
				revoke(w, w.inSinks()[0])
				sent := len(w.sent)
				_, err := w.do(t, resume, unasked)
				stuckIn(t, rotation.StateConverging, err)
				require.ErrorIs(t, err, rotation.ErrNotAccepted)
				assert.Len(t, w.sent, sent, "nothing was retired")
				assert.Equal(t, []string{old}, w.accepted())
				if s == paired {
					w.ricloud.SetKeyState(2, "active") // what is blocked cannot be burnt
				}
				clear(w.held)
				_, err = w.do(t, rollback, unasked)
				require.NoError(t, err)
				w.serves(t)
			})
		})
	}
}

// Readers of a sink that somebody has changed while others were waited for
// would lose their token.
func TestChangedWhileConverging(t *testing.T) {
	t.Parallel()
	for _, s := range []strategyName{paired, swap} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			spoilt(t, s, func(t *testing.T, w *world) {
				old := w.inSinks()[0]
				stopAt(t, w, rotation.StateConverging, nil)
				w.disk.WriteFile(w.sinks[1], []byte("TOKEN="+old+"\n"), 0o600)
				clear(w.held)
				sent := len(w.sent)
				_, err := w.do(t, resume, nil)
				stuckIn(t, rotation.StateDistributing, err)
				require.ErrorIs(t, err, sink.ErrConflict)
				assert.Len(t, w.sent, sent, "nothing was retired")
				assert.Contains(t, w.accepted(), old)
				r, err := w.do(t, resume, nil) // it holds the old token: that may be replaced
				require.NoError(t, err)
				assert.Equal(t, rotation.StateDone, r.State)
				w.serves(t)
			})
		})
	}
}

// Whoever still uses the old credential would be cut off.
func TestOldCredentialInUseIsKept(t *testing.T) {
	t.Parallel()
	scene(t, swap, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		uses := 0
		var last, retired time.Time
		p := w.start(t.Context(), 0)
		defer p.cancel()
		e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
			switch v := v.(type) {
			case rotation.Waiting:
				if v.Why == "for the old key to be idle" && uses < 8 {
					uses++
					last = time.Now()
					w.aceData.SetUsed(string(w.first), 30+float64(uses))
				}
			case rotation.StateChanged:
				if v.To == rotation.StateRetiring {
					retired = time.Now()
					assert.Contains(t, w.accepted(), old)
				}
			}
		}))
		require.NoError(t, err)
		_, err = e.Rotate(p.ctx, p.job())
		require.NoError(t, err)
		assert.Equal(t, 8, uses)
		assert.GreaterOrEqual(t, retired.Sub(last), 10*time.Second)
		require.Len(t, w.credentials(), 1)
		assert.InDelta(t, 62, *w.credentials()[0].LimitedAmount, 0.001, "what was spent meanwhile is taken off")
	})
}

// Readers that have not seen the old token again would be cut off.
func TestRollbackWaitsForReaders(t *testing.T) {
	t.Parallel()
	for _, s := range []strategyName{paired, swap} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			scene(t, s, func(t *testing.T, w *world) {
				long := func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Hour)) }
				stopAt(t, w, rotation.StateConverging, long)
				clear(w.held)
				start, sent := time.Now(), len(w.sent)
				r, err := w.do(t, rollback, long)
				require.NoError(t, err)
				assert.Equal(t, rotation.StateRolledBack, r.State)
				require.Greater(t, len(w.sent), sent)
				assert.GreaterOrEqual(t, w.sent[sent].at.Sub(start), time.Hour-2*time.Second)
				w.serves(t)
			})
		})
	}
}

// The token that was adopted would be known to nobody after a crash, and the
// one in the journal lapses.
func TestAdoptionIsSavedAtOnce(t *testing.T) {
	t.Parallel()
	spoilt(t, overlap, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateIssued, nil)
		w.ask("POST", "/keys/1/rotate", "{}")
		p := w.start(t.Context(), 0)
		job := p.job()
		job.Verify = func(ctx context.Context, token keywright.Secret) error {
			assert.Equal(t, w.ricloud.TokenOf(1), token.Reveal())
			p.disk.Kill()
			p.cancel()
			return ctx.Err()
		}
		_, err := p.engine().Resume(p.ctx, job)
		require.Error(t, err)
		pass(t.Context(), 7*time.Hour)
		require.Len(t, w.accepted(), 1, "all the others have lapsed")
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
		assert.Len(t, w.sent, 1)
	})
}

// The token would be asked for twice: the record that says that it was asked
// for is damaged, and the one before it does not know.
func TestDamagedIntentIsResolved(t *testing.T) {
	t.Parallel()
	for _, s := range []strategyName{paired, overlap, swap} {
		for name, c := range map[string]struct {
			first *keywrighttest.Fault // of an attempt before
			last  keywrighttest.Fault
		}{
			"planned":             {last: keywrighttest.Fault{When: keywrighttest.AfterApply}},
			"planned, and late":   {last: keywrighttest.Fault{When: keywrighttest.LateApply, Delay: 20 * time.Second}},
			"resolving":           {first: &keywrighttest.Fault{Do: keywrighttest.Drop}, last: keywrighttest.Fault{When: keywrighttest.AfterApply}},
			"resolving, and late": {first: &keywrighttest.Fault{Do: keywrighttest.Drop}, last: keywrighttest.Fault{When: keywrighttest.LateApply, Delay: 20 * time.Second}},
		} {
			t.Run(string(s)+" "+name, func(t *testing.T) {
				t.Parallel()
				scene(t, s, func(t *testing.T, w *world) {
					seeded := w.applied()
					p := w.start(t.Context(), 0)
					if c.first != nil {
						c.first.Op = s.issues()
						w.inject(*c.first)
					}
					c.last.Op = s.issues()
					w.inject(killedBy(p, c.last))
					_, err := p.engine().Rotate(p.ctx, p.job())
					require.Error(t, err)
					require.Equal(t, rotation.StateIntent, w.status(t).State)
					w.damage(t)
					r, err := w.do(t, rotate, nil)
					require.NoError(t, err)
					assert.Equal(t, rotation.StateDone, r.State)
					assert.Equal(t, seeded+1, w.applied()-len(w.forced()), "it was asked for once")
					w.serves(t)
				})
			})
		}
	}
}

// bearer notes what forced rotations were authenticated with.
type bearer struct {
	*process
	tokens *[]string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := len(b.forced())
	resp, err := b.process.RoundTrip(r)
	if len(b.forced()) > sent {
		_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		*b.tokens = append(*b.tokens, token)
	}
	return resp, err
}

// The program would saw off the branch it sits on: a key that is burnt with its
// own token may be the one in use.
func TestBurnUsesTheOtherKey(t *testing.T) {
	t.Parallel()
	t.Run("either way", func(t *testing.T) {
		t.Parallel()
		for _, verb := range []func(*rotation.Engine, context.Context, rotation.Job) (*rotation.Result, error){resume, rollback} {
			scene(t, paired, func(t *testing.T, w *world) {
				stopAt(t, w, rotation.StateConverging, nil)
				clear(w.held)
				var tokens []string
				_, err := w.do(t, verb, func(j *rotation.Job) {
					s := j.Strategy.(rotation.RicloudPaired)
					p := w.start(t.Context(), 0)
					rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithHTTPClient(&http.Client{Transport: bearer{p, &tokens}}),
						keywright.WithBaseURL("http://127.0.0.1"), keywright.WithTokenSource(diskToken{p}))
					require.NoError(t, err)
					s.Client = rc
					j.Strategy = s
				})
				require.NoError(t, err)
				assert.Equal(t, w.inSinks()[:1], tokens)
			})
		}
	})
	t.Run("not if it is shown to belong to the key", func(t *testing.T) {
		t.Parallel()
		scene(t, paired, func(t *testing.T, w *world) {
			old := w.inSinks()[0]
			stopAt(t, w, rotation.StateRetiring, nil)
			w.inject(keywrighttest.Fault{Op: "key.current", When: keywrighttest.AfterApply, Edit: func(b []byte) []byte {
				return []byte(strings.Replace(string(b), `"id":2`, `"id":1`, 1))
			}})
			_, err := w.do(t, resume, nil)
			require.ErrorIs(t, err, rotation.ErrUnfinished)
			assert.ErrorContains(t, err, "the token to burn key 1 with belongs to key 1")
			assert.Empty(t, w.forced())
			assert.Contains(t, w.accepted(), old)
			_, err = w.do(t, resume, nil)
			require.NoError(t, err)
			assert.NotContains(t, w.accepted(), old)
		})
	})
}

// A leaked token would be taken for dead: the provider says that it has burnt
// it, and accepts it still.
func TestBurnIsNotBelieved(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		old := w.inSinks()[0]
		stopAt(t, w, rotation.StateConverging, nil)
		w.inject(keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Answer, Status: 200, Body: string(w.ask("GET", "/keys/1", "")), Times: -1})
		_, err := w.do(t, resume, nil)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.ErrorIs(t, err, rotation.ErrNotReady)
		assert.NotEmpty(t, w.forced())
		assert.Equal(t, rotation.StateRetiring, w.status(t).State)
		assert.Contains(t, w.accepted(), old)
		w.clear()
		w.ask("POST", "/keys/1/rotate", `{"force":true}`)
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.serves(t)
	})
}

// created returns when the last credential that was asked for was to expire.
func (w *world) created(t *testing.T) time.Time {
	t.Helper()
	var body struct {
		ExpiredAt time.Time `json:"expired_at"`
	}
	for _, r := range w.aceData.Requests() {
		if r.Op == "credential.create" {
			body.ExpiredAt = time.Time{}
			require.NoError(t, json.Unmarshal(r.Body, &body))
		}
	}
	return body.ExpiredAt
}

// A credential that nobody ever hears of again would be live for ever, or for
// longer than the one that it replaces.
func TestNewCredentialIsBornExpiring(t *testing.T) {
	t.Parallel()
	for _, left := range []time.Duration{0, 10 * time.Minute, 24 * time.Hour} {
		scene(t, swap, func(t *testing.T, w *world) {
			old, most := "", time.Now().Add(time.Hour)
			if left > 0 {
				at := time.Now().Add(left).UTC()
				old = at.Format(time.RFC3339)
				w.ask("PATCH", "/api/v1/credentials/"+string(w.first), `{"expired_at":"`+old+`"}`)
				if at.Before(most) {
					most = at
				}
			}
			start := time.Now()
			r, err := w.do(t, rotate, nil)
			require.NoError(t, err)
			require.Equal(t, rotation.StateDone, r.State)
			born := w.created(t)
			assert.True(t, born.After(start), "%s", born)
			assert.False(t, born.After(most), "%s", born)
			c := w.credentials()
			require.Len(t, c, 1)
			if left == 0 {
				assert.Nil(t, c[0].ExpiredAt)
				return
			}
			require.NotNil(t, c[0].ExpiredAt)
			at, err := time.Parse(time.RFC3339, *c[0].ExpiredAt)
			require.NoError(t, err)
			assert.Equal(t, old, at.UTC().Format(time.RFC3339))
		})
	}
}

// Another job's rotation would lose the credential that it has just made.
func TestSweepSparesOtherJobs(t *testing.T) {
	t.Parallel()
	scene(t, swap, func(t *testing.T, w *world) {
		lineage := strings.Repeat("f", 16)
		marker := "keywright-" + lineage + "-" + strings.Repeat("0", 16)
		id, token := w.create(t, marker, `,"metadata":{"keywright":{"marker":"`+marker+`","lineage":"`+lineage+`"}}`)
		w.inject(keywrighttest.Fault{Op: "credential.create", Do: keywrighttest.Twice}) // so that there is something to sweep
		r, err := w.do(t, rotate, unasked)
		require.NoError(t, err)
		require.Equal(t, rotation.StateDone, r.State)
		assert.Equal(t, []string{token}, w.aceData.AcceptedTokens(id))
		assert.Len(t, w.credentials(), 2, "that one, and the one in use")
	})
}

// undated takes the date from every answer.
var undated = keywrighttest.Fault{When: keywrighttest.AfterApply, Times: -1, Header: http.Header{"Date": nil}}

// A wait would be skipped, or last for a day, and a new credential would be born
// dead: the machine has started with a clock that is a day behind, and the
// provider does not say what time it is.
func TestStartedADayBack(t *testing.T) {
	t.Parallel()
	behind := func() *badClock {
		c := newBadClock()
		c.shift = -24 * time.Hour
		return c
	}
	t.Run("lag", func(t *testing.T) {
		t.Parallel()
		scene(t, paired, func(t *testing.T, w *world) {
			long := func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Hour)) }
			stopAt(t, w, rotation.StateConverging, long)
			delivered := time.Now()
			pass(t.Context(), 10*time.Minute)
			w.inject(undated)
			require.NoError(t, w.with(t, behind(), long))
			require.NotEmpty(t, w.forced())
			took := w.forced()[0].Sub(delivered)
			assert.GreaterOrEqual(t, took, time.Hour-2*time.Second)
			assert.Less(t, took, time.Hour+15*time.Minute)
		})
	})
	t.Run("settling", func(t *testing.T) {
		t.Parallel()
		scene(t, overlap, func(t *testing.T, w *world) {
			p := w.start(t.Context(), 0)
			w.inject(killedBy(p, keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.LateApply, Delay: 40 * time.Second}))
			_, err := p.engine().Rotate(p.ctx, p.job())
			require.Error(t, err)
			w.inject(undated)
			start := time.Now()
			require.NoError(t, w.with(t, behind(), nil))
			assert.Less(t, time.Since(start), 5*time.Minute)
			assert.Equal(t, 1, w.applied())
			w.serves(t)
		})
	})
	t.Run("trial", func(t *testing.T) {
		t.Parallel()
		scene(t, swap, func(t *testing.T, w *world) {
			_, err := w.do(t, rotate, nil)
			require.NoError(t, err)
			pass(t.Context(), 10*time.Minute)
			w.inject(undated)
			require.NoError(t, w.with(t, behind(), nil))
			assert.True(t, w.created(t).After(time.Now().Add(-30*time.Minute)), "%s", w.created(t))
			w.serves(t)
		})
	})
}
