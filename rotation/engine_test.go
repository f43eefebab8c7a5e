package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
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

// scene plays in a world of its own.
func scene(t *testing.T, s strategyName, f func(t *testing.T, w *world), variant ...keywrighttest.Option) {
	t.Helper()
	w, err := newWorld(s, variant...)
	require.NoError(t, err)
	inWorld(t, w, func(t *testing.T) {
		f(t, w)
		require.NoError(t, w.problem)
	})
}

// do is one run of the program with a job that is changed first.
func (w *world) do(t *testing.T, verb func(*rotation.Engine, context.Context, rotation.Job) (*rotation.Result, error), change func(*rotation.Job)) (*rotation.Result, error) {
	t.Helper()
	p := w.start(t.Context(), 0)
	defer p.cancel()
	job := p.job()
	if change != nil {
		change(&job)
	}
	r, err := verb(p.engine(), p.ctx, job)
	if err != nil {
		w.say("%v %+v %#v\n", err, err, err)
	}
	w.mu.Lock()
	w.check()
	w.mu.Unlock()
	return r, err
}

var (
	rotate   = (*rotation.Engine).Rotate
	resume   = (*rotation.Engine).Resume
	rollback = (*rotation.Engine).Rollback
)

// Every refusal names what is wrong and what to do instead, and nothing is sent
// that changes anything.
func TestRefusals(t *testing.T) {
	t.Parallel()
	ricloud := func(s rotation.Strategy) *keywright.Ricloud {
		switch s := s.(type) {
		case rotation.RicloudOverlap:
			return s.Client
		case rotation.RicloudPaired:
			return s.Client
		}
		return nil
	}
	overlapJob := func(change func(*rotation.RicloudOverlap)) func(*rotation.Job) {
		return func(j *rotation.Job) {
			s := rotation.RicloudOverlap{Client: ricloud(j.Strategy), Key: 1}
			change(&s)
			j.Strategy = s
		}
	}
	for name, c := range map[string]struct {
		strategy strategyName
		options  []keywrighttest.Option
		before   func(t *testing.T, w *world)
		job      func(*rotation.Job)
		reason   rotation.Reason
		text     []string
	}{
		"force without recovery": {
			strategy: overlap, job: overlapJob(func(s *rotation.RicloudOverlap) { s.Force = true }),
			reason: rotation.ReasonForce, text: []string{"kills the token it is asked for with", "Recovery"},
		},
		"force with the key's own token": {
			strategy: overlap, job: overlapJob(func(s *rotation.RicloudOverlap) { s.Force, s.AcceptOutage, s.Recovery = true, true, s.Client }),
			reason: rotation.ReasonForce, text: []string{"the recovery token (Recovery) is of key 1 itself", "another key's"},
		},
		"force without consent": {
			strategy: overlap, job: overlapJob(func(s *rotation.RicloudOverlap) { s.Force, s.Recovery = true, s.Client }),
			reason: rotation.ReasonOutage, text: []string{"interrupts service", "AcceptOutage"},
		},
		"window open": {
			strategy: overlap, before: func(t *testing.T, w *world) {
				_, err := w.do(t, rotate, nil)
				require.NoError(t, err)
			},
			reason: rotation.ReasonWindow, text: []string{"is accepted until", "wait until then", "ricloud-paired (RicloudPaired)"},
		},
		"drift": {
			strategy: overlap, before: func(_ *testing.T, w *world) {
				w.ask("POST", "/keys/1/rotate", "{}") // by somebody else
			},
			reason: rotation.ReasonDrift, text: []string{"/app/token does not hold the token in use", "find out who"},
		},
		"one sink differs": {
			strategy: paired, before: func(_ *testing.T, w *world) {
				w.disk.WriteFile(w.sinks[1], []byte("TOKEN="+w.ricloud.TokenOf(2)+"\n"), 0o600)
			},
			reason: rotation.ReasonDrift, text: []string{"/app/.env TOKEN does not hold"},
		},
		"outage without consent": {
			strategy: inPlace, job: func(j *rotation.Job) {
				s := j.Strategy.(rotation.AceDataInPlace)
				s.AcceptOutage = false
				j.Strategy = s
			},
			reason: rotation.ReasonOutage, text: []string{"interrupts service", "acedata-swap (AceDataSwap)"},
		},
		"budget": {
			strategy: overlap, job: func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(7*time.Hour)) },
			reason: rotation.ReasonBudget, text: []string{"needs 7h12m0s", "6h0m0s", "ricloud-paired (RicloudPaired)"},
		},
		"until restart, and nobody tells": {
			strategy: swap, job: func(j *rotation.Job) { j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN") },
			reason: rotation.ReasonBudget, text: []string{"read when its readers start", "Acknowledge"},
		},
		"key not active": {
			strategy: paired, before: func(_ *testing.T, w *world) { w.ricloud.SetKeyState(2, "blocked") },
			reason: rotation.ReasonState, text: []string{`key 2 is "blocked"`, "activated"},
		},
		"credential expired": {
			strategy: swap, before: func(t *testing.T, w *world) {
				w.ask("PATCH", "/api/v1/credentials/"+string(w.first), `{"expired_at":"1999-01-01T00:00:00Z"}`)
				w.loose = true
			},
			reason: rotation.ReasonState, text: []string{"expired at 1999", "Lifetime"},
		},
		"spent": {
			strategy: swap, before: func(_ *testing.T, w *world) { w.aceData.SetUsed(string(w.first), 100); w.loose = true },
			reason: rotation.ReasonSpent, text: []string{"spent its limit", "raise"},
		},
		"masked": {
			strategy: overlap, options: []keywrighttest.Option{keywrighttest.WithMaskedTokens()},
			reason: rotation.ReasonMasked, text: []string{"could not be read back", "ricloud-paired (RicloudPaired)"},
		},
		"masked, and no sink can be read": {
			strategy: swap, options: []keywrighttest.Option{keywrighttest.WithMaskedTokens()},
			job: func(j *rotation.Job) {
				j.Sinks = []sink.Sink{sink.Func("hook", sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error { return nil }, nil)}
			},
			reason: rotation.ReasonUnreadable, text: []string{"no sink can be read", "add a sink"},
		},
		"no token of the pair": {
			strategy: paired, before: func(_ *testing.T, w *world) {
				w.ricloud.AddKeys(1)
				w.disk.WriteFile(w.sinks[0], []byte(w.ricloud.TokenOf(3)+"\n"), 0o600)
				w.disk.WriteFile(w.sinks[1], nil, 0o600)
				w.loose = true
			},
			reason: rotation.ReasonUnreadable, text: []string{"belongs to keys 1 and 2", "put the token"},
		},
		"one key twice": {
			strategy: paired, job: func(j *rotation.Job) {
				j.Strategy = rotation.RicloudPaired{Client: ricloud(j.Strategy), Keys: [2]keywright.KeyID{1, 1}}
			},
			reason: rotation.ReasonJob, text: []string{"both keys are key 1"},
		},
		"an application that takes one credential": {
			strategy: inPlace, job: func(j *rotation.Job) {
				s := j.Strategy.(rotation.AceDataInPlace)
				j.Strategy = rotation.AceDataSwap{Client: s.Client, Credential: s.Credential}
			},
			reason: rotation.ReasonSingle, text: []string{"takes one credential only", "acedata-in-place (AceDataInPlace)"},
		},
		"gone": {
			strategy: swap, before: func(_ *testing.T, w *world) { w.aceData.RemoveCredential(string(w.first)); w.loose = true },
			reason: rotation.ReasonGone, text: []string{"there is no credential", "check the id"},
		},
		"a sink that cannot be written": {
			strategy: paired, before: func(_ *testing.T, w *world) { w.disk.Chmod("/app", 0o777) },
			reason: rotation.ReasonSink, text: []string{"a sink cannot be used", "/app/token", "mend it"},
		},
		"too soon": {
			strategy: paired, before: func(t *testing.T, w *world) {
				_, err := w.do(t, rotate, nil)
				require.NoError(t, err)
			},
			job:    func(j *rotation.Job) { j.Policy.MinInterval = time.Hour },
			reason: rotation.ReasonInterval, text: []string{"the last rotation was over at", "wait until"},
		},
		"no strategy":    {strategy: paired, job: func(j *rotation.Job) { j.Strategy = nil }, reason: rotation.ReasonJob, text: []string{"no strategy"}},
		"no sink":        {strategy: paired, job: func(j *rotation.Job) { j.Sinks = nil }, reason: rotation.ReasonJob, text: []string{"nobody would get the token"}},
		"nil sink":       {strategy: paired, job: func(j *rotation.Job) { j.Sinks[0] = nil }, reason: rotation.ReasonJob, text: []string{"nil"}},
		"a sink twice":   {strategy: paired, job: func(j *rotation.Job) { j.Sinks[1] = j.Sinks[0] }, reason: rotation.ReasonJob, text: []string{"two sinks are named"}},
		"a bad name":     {strategy: paired, job: func(j *rotation.Job) { j.Name = "../x" }, reason: rotation.ReasonJob, text: []string{"a job's name"}},
		"the key's name": {strategy: paired, job: func(j *rotation.Job) { j.Name = "Sealing.key" }, reason: rotation.ReasonJob, text: []string{"is not sealing.key"}},
		"no client":      {strategy: paired, job: func(j *rotation.Job) { j.Strategy = rotation.RicloudPaired{Keys: [2]keywright.KeyID{1, 2}} }, reason: rotation.ReasonJob, text: []string{"no client"}},
		"a bad number":   {strategy: paired, job: func(j *rotation.Job) { j.Policy.Attempts = -1 }, reason: rotation.ReasonJob, text: []string{"negative"}},
		"fixed, but no": {strategy: swap, job: func(j *rotation.Job) {
			s := j.Strategy.(rotation.AceDataSwap)
			s.Cap = rotation.CapFixed
			j.Strategy = s
		}, reason: rotation.ReasonJob, text: []string{"CapFixed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene(t, c.strategy, func(t *testing.T, w *world) {
				if c.before != nil {
					c.before(t, w)
				}
				sent := len(w.sent)
				for _, verb := range []func(*rotation.Engine, context.Context, rotation.Job) (*rotation.Result, error){
					rotate,
					func(e *rotation.Engine, ctx context.Context, j rotation.Job) (*rotation.Result, error) {
						_, err := e.Plan(ctx, j)
						return nil, err
					},
				} {
					_, err := w.do(t, verb, c.job)
					require.ErrorIs(t, err, rotation.ErrRefused)
					var refused *rotation.RefusedError
					require.ErrorAs(t, err, &refused)
					assert.Equal(t, c.reason, refused.Reason)
					assert.NotEmpty(t, refused.Instead)
					for _, text := range c.text {
						assert.ErrorContains(t, err, text)
					}
				}
				assert.Len(t, w.sent, sent, "something was sent")
			}, c.options...)
		})
	}
}

// A provider without the rotate route is told apart from one that fails.
func TestNoRotateRoute(t *testing.T) {
	t.Parallel()
	for _, status := range []int{404, 405} {
		scene(t, inPlace, func(t *testing.T, w *world) {
			old := w.inSinks()
			_, err := w.do(t, rotate, nil)
			require.ErrorIs(t, err, rotation.ErrNotIssued)
			require.True(t, refusedFor(err, rotation.ReasonNoRotate))
			require.ErrorContains(t, err, "use acedata-swap (AceDataSwap)")
			assert.Equal(t, old, w.inSinks())
			assert.Equal(t, old[:1], w.accepted())
		}, keywrighttest.WithoutRotate(status))
	}
}

// A forced rotation with another key's token, and consent, kills the old token
// at once.
func TestForcedOverlap(t *testing.T) {
	t.Parallel()
	w, err := newWorld(overlap)
	require.NoError(t, err)
	w.loose = true
	inWorld(t, w, func(t *testing.T) {
		old := w.ricloud.Token()
		w.ricloud.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
		_, err := w.do(t, rotate, func(j *rotation.Job) {
			s := j.Strategy.(rotation.RicloudOverlap)
			recovery, err := s.Client.WithTokenSource(keywright.StaticToken(keywright.NewSecret(w.ricloud.TokenOf(2))))
			require.NoError(t, err)
			s.Recovery, s.Force, s.AcceptOutage = recovery, true, true
			j.Strategy = s
		})
		require.NoError(t, err)
		assert.NotContains(t, w.ricloud.AcceptedTokens(1), old)
		assert.Equal(t, []string{w.ricloud.Token(), w.ricloud.Token()}, w.inSinks())
	})
}

// stopAt makes a run end when it enters a state.
func stopAt(t *testing.T, w *world, state rotation.State, change func(*rotation.Job)) {
	t.Helper()
	p := w.start(t.Context(), 0)
	e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
		if s, ok := v.(rotation.StateChanged); ok && s.To == state {
			p.disk.Kill()
			p.cancel()
		}
	}))
	require.NoError(t, err)
	job := p.job()
	if change != nil {
		change(&job)
	}
	_, err = e.Rotate(p.ctx, job)
	require.Error(t, err)
	status, err := w.start(t.Context(), 0).engine().Status(t.Context(), "app")
	require.NoError(t, err)
	require.Equal(t, state, status.State)
}

// From every state before the point of no return there is a way back, and from
// every later one there is none.
func TestRollback(t *testing.T) {
	t.Parallel()
	back := []rotation.State{rotation.StatePlanned, rotation.StateIntent, rotation.StateIssued, rotation.StateVerified, rotation.StateDistributing, rotation.StateConverging}
	for _, s := range []strategyName{paired, swap} {
		for _, state := range back {
			t.Run(string(s)+" "+string(state), func(t *testing.T) {
				t.Parallel()
				scene(t, s, func(t *testing.T, w *world) {
					old := w.inSinks()
					stopAt(t, w, state, nil)
					issued := w.accepted()
					clear(w.held)
					r, err := w.do(t, rollback, nil)
					require.NoError(t, err)
					assert.True(t, r.State.Finished(), r.State)
					assert.Equal(t, old, w.inSinks())
					accepted := w.accepted()
					assert.Contains(t, accepted, old[0])
					if s == swap {
						assert.Equal(t, []string{old[0]}, accepted, "nothing else is left of %d", len(issued))
					}
					// And the next rotation is like any other.
					clear(w.held)
					r, err = w.start(t.Context(), 0).rotate()
					require.NoError(t, err)
					clear(w.used)
					w.note()
					require.NoError(t, w.over(&rotation.Result{State: r.State, Resumed: true}))
					assert.NotEqual(t, old, w.inSinks())
				})
			})
		}
		t.Run(string(s)+" too late", func(t *testing.T) {
			t.Parallel()
			scene(t, s, func(t *testing.T, w *world) {
				_, err := w.do(t, rollback, nil)
				require.ErrorIs(t, err, rotation.ErrNoWayBack, "nothing is under way")
				stopAt(t, w, rotation.StateRetiring, nil)
				_, err = w.do(t, rollback, nil)
				require.ErrorIs(t, err, rotation.ErrNoWayBack)
				_, err = w.do(t, resume, nil)
				require.NoError(t, err)
			})
		})
	}
	t.Run("overlap", func(t *testing.T) {
		t.Parallel()
		scene(t, overlap, func(t *testing.T, w *world) {
			stopAt(t, w, rotation.StateIssued, nil)
			_, err := w.do(t, rollback, nil)
			require.ErrorIs(t, err, rotation.ErrNoWayBack)
			r, err := w.do(t, resume, nil)
			require.NoError(t, err)
			assert.True(t, r.Resumed)
		})
	})
}

// A sink that somebody else wrote meanwhile is left alone; the others get the
// token, and the old one is not retired until a person has looked.
func TestConflict(t *testing.T) {
	t.Parallel()
	foreign := "TOKEN=somebody-elses-token-0123456789\n"
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateVerified, nil)
		w.disk.WriteFile(w.sinks[1], []byte(foreign), 0o600)
		w.loose = true
		for range 2 {
			_, err := w.do(t, resume, nil)
			require.ErrorIs(t, err, rotation.ErrStuck)
			require.ErrorIs(t, err, sink.ErrConflict)
			var stuck *rotation.StuckError
			require.ErrorAs(t, err, &stuck)
			assert.Equal(t, rotation.StateDistributing, stuck.State)
			assert.Contains(t, strings.Join(stuck.Steps, ";"), "mend dotenv /app/.env TOKEN")
			b, _ := w.disk.ReadFile(w.sinks[1])
			assert.Equal(t, foreign, string(b))
		}
		status, err := w.start(t.Context(), 0).engine().Status(t.Context(), "app")
		require.NoError(t, err)
		assert.Equal(t, rotation.StateStuck, status.State)
		assert.Equal(t, rotation.SinkConfirmed, status.Sinks[0].State)
		assert.Equal(t, rotation.SinkConflict, status.Sinks[1].State)
		assert.NotEmpty(t, status.Steps)
		assert.Contains(t, w.accepted(), w.held[w.sinks[0]][0], "the old token is not retired")
		// Somebody puts the old token back, and all goes on.
		w.disk.WriteFile(w.sinks[1], []byte("TOKEN="+w.held[w.sinks[0]][0]+"\n"), 0o600)
		clear(w.held)
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, r.State)
		w.loose = false
		w.note()
	})
}

// If the first sink fails, the others are not touched.
func TestCanarySink(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		var wrote []string
		broken := errors.New("exit status 1")
		job := func(j *rotation.Job) {
			hook := func(name string, err *error) sink.Sink {
				return sink.Func(name, sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error {
					wrote = append(wrote, name)
					return *err
				}, nil)
			}
			var fine error
			j.Sinks = append([]sink.Sink{hook("canary", &broken)}, append(j.Sinks, hook("last", &fine))...)
		}
		_, err := w.do(t, rotate, job)
		require.ErrorIs(t, err, rotation.ErrStuck)
		assert.Equal(t, []string{"canary"}, wrote)
		assert.Len(t, w.held[w.sinks[0]], 1)
		broken = nil
		_, err = w.do(t, resume, job)
		require.NoError(t, err)
		assert.Equal(t, []string{"canary", "canary", "last"}, wrote)
	})
}

// A sink that is down for a while is waited for; one that is down for longer
// ends the run, and the next goes on.
func TestSinkDown(t *testing.T) {
	t.Parallel()
	scene(t, swap, func(t *testing.T, w *world) {
		until := time.Now().Add(time.Minute)
		job := func(j *rotation.Job) {
			j.Sinks = append(j.Sinks, sink.Func("hook", sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error {
				if time.Now().Before(until) {
					return fmt.Errorf("%w: down", sink.ErrTemporary)
				}
				return nil
			}, nil))
		}
		r, err := w.do(t, rotate, job)
		require.NoError(t, err)
		require.NoError(t, w.over(r))
		until = time.Now().Add(time.Hour)
		clear(w.used)
		_, err = w.do(t, rotate, job)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.ErrorIs(t, err, sink.ErrTemporary)
		pass(t.Context(), time.Hour)
		_, err = w.do(t, resume, job)
		require.NoError(t, err)
	})
}

// The provider's answer comes before its frontends know the token.
func TestLag(t *testing.T) {
	t.Parallel()
	for _, s := range strategies {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			scene(t, s, func(t *testing.T, w *world) {
				pass(t.Context(), time.Minute)
				w.problem = nil // the first token had to be waited for too
				r, err := w.do(t, rotate, nil)
				require.NoError(t, err)
				require.NoError(t, w.over(r))
			}, keywrighttest.WithLag(20*time.Second))
		})
	}
	t.Run("for too long", func(t *testing.T) {
		t.Parallel()
		scene(t, paired, func(t *testing.T, w *world) {
			_, err := w.do(t, rotate, nil)
			require.ErrorIs(t, err, rotation.ErrStuck)
			require.ErrorIs(t, err, rotation.ErrNotAccepted)
			assert.ErrorContains(t, err, "run Rollback")
			pass(t.Context(), time.Hour)
			_, err = w.do(t, rollback, func(j *rotation.Job) { j.Policy.DistributeFor = 2 * time.Hour })
			require.NoError(t, err)
		}, keywrighttest.WithLag(30*time.Minute))
	})
}

// A provider that cannot be reached says nothing about a token.
func TestVerifyUnreachable(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateIssued, nil)
		w.ricloud.Inject(keywrighttest.Fault{Op: "key.current", Do: keywrighttest.Drop, Times: -1})
		_, err := w.do(t, resume, nil)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.NotErrorIs(t, err, rotation.ErrStuck)
		w.ricloud.ClearFaults()
		_, err = w.do(t, resume, nil)
		require.NoError(t, err)
	})
}

// The old credential cannot be deleted: that is said, with its id.
func TestOrphan(t *testing.T) {
	t.Parallel()
	scene(t, swap, func(t *testing.T, w *world) {
		w.aceData.Inject(keywrighttest.Fault{Op: "credential.delete", Do: keywrighttest.Answer, Status: 403, Body: `{"detail":"no","code":"permission_denied"}`})
		_, err := w.do(t, rotate, nil)
		require.ErrorIs(t, err, rotation.ErrOrphan)
		require.ErrorIs(t, err, rotation.ErrStuck)
		assert.ErrorContains(t, err, "retire credential "+string(w.first)+", and nothing else")
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		require.NoError(t, w.over(r))
	})
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateConverging, nil)
		w.ricloud.Inject(keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Answer, Status: 403, Body: `{"error":"missing-scope","message":"no"}`})
		_, err := w.do(t, resume, nil)
		require.ErrorIs(t, err, rotation.ErrOrphan)
		assert.ErrorContains(t, err, "retire key 1, and nothing else")
		// A person does that, and the engine sees it.
		w.ask("POST", "/keys/1/rotate", `{"force":true}`)
		sent := len(w.sent)
		_, err = w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Len(t, w.sent, sent)
	})
}

// Somebody else rotates the key while its token is on its way: with one key,
// the newest token is delivered; with two, a person is asked.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateConverging, nil)
		w.ask("POST", "/keys/1/rotate", "{}")
		r, err := w.do(t, resume, nil)
		require.NoError(t, err)
		require.NoError(t, w.over(r))
		assert.Len(t, w.sent, 1)
	})
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateConverging, nil)
		w.ask("POST", "/keys/2/rotate", "{}")
		for range 2 {
			_, err := w.do(t, resume, nil)
			require.ErrorIs(t, err, rotation.ErrStuck)
		}
		clear(w.held)
		_, err := w.do(t, rollback, nil)
		require.NoError(t, err)
	})
}

// A sink that cannot be read and was written by somebody else stays as it is
// until somebody has put a token back.
func TestConflictUnread(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		hook := &versioned{version: "1"}
		job := func(j *rotation.Job) { j.Sinks = append(j.Sinks, hook) }
		stopAt(t, w, rotation.StateVerified, job)
		hook.version = "2" // somebody else
		for range 3 {
			_, err := w.do(t, resume, job)
			require.ErrorIs(t, err, sink.ErrConflict)
		}
		assert.Empty(t, hook.token)
		hook.version = "3" // a person
		_, err := w.do(t, resume, job)
		require.NoError(t, err)
		assert.Equal(t, w.inSinks()[0], hook.token)
	})
}

// versioned is a sink that shows when it was written, and not what.
type versioned struct{ version, token string }

func (v *versioned) Name() string        { return "versioned" }
func (v *versioned) Traits() sink.Traits { return sink.Traits{Grade: sink.GradeAcknowledged} }
func (v *versioned) Read(context.Context) (sink.Reading, error) {
	return sink.Reading{Version: v.version}, nil
}

func (v *versioned) CompareAndWrite(_ context.Context, previous sink.Reading, token keywright.Secret) error {
	if previous.Version != v.version {
		return sink.ErrConflict
	}
	v.version, v.token = v.version+"+", token.Reveal()
	return nil
}
func (v *versioned) Confirm(context.Context, keywright.Secret) error { return nil }

// Retiring whose answer is lost is done again.
func TestRetireLost(t *testing.T) {
	t.Parallel()
	for _, f := range []keywrighttest.Fault{
		{When: keywrighttest.AfterApply, Do: keywrighttest.Drop}, {Do: keywrighttest.Drop},
		{When: keywrighttest.AfterApply, Do: keywrighttest.Cut}, {Do: keywrighttest.Answer, Status: 500}, {Do: keywrighttest.Answer, Status: 404},
	} {
		for s, ops := range map[strategyName][]string{paired: {"key.rotate"}, swap: {"credential.update", "credential.delete"}} {
			for _, op := range ops {
				t.Run(fmt.Sprintf("%s %d %d %d", op, f.When, f.Do, f.Status), func(t *testing.T) {
					t.Parallel()
					scene(t, s, func(t *testing.T, w *world) {
						stopAt(t, w, rotation.StateConverging, nil)
						f := f
						f.Op = op
						w.inject(f)
						r, err := w.do(t, resume, nil)
						if f.Status == 404 {
							return // said to be gone: there is nothing left to do
						}
						require.NoError(t, err)
						require.NoError(t, w.over(r))
					})
				})
			}
		}
	}
}

// The journal cannot keep the new token: the escrow gets it, and the error has
// it; when the disk is back, the rotation goes on.
func TestUnsaved(t *testing.T) {
	t.Parallel()
	for _, escrow := range []error{nil, errors.New("the escrow is down")} {
		scene(t, swap, func(t *testing.T, w *world) {
			p := w.start(t.Context(), 0)
			p.disks = func(string, string, bool) error {
				if w.aceData.Applied("credential.create") > 1 { // seeding made one
					return syscall.EIO
				}
				return nil
			}
			job := p.job()
			var kept keywright.Secret
			job.Escrow = func(_ context.Context, token keywright.Secret) error {
				kept = token
				return escrow
			}
			_, err := p.engine().Rotate(p.ctx, job)
			require.ErrorIs(t, err, rotation.ErrUnfinished)
			require.ErrorIs(t, err, syscall.EIO)
			var unsaved *rotation.UnsavedError
			require.ErrorAs(t, err, &unsaved)
			assert.True(t, unsaved.Token.Equal(kept))
			assert.Contains(t, w.accepted(), kept.Reveal())
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, unsaved), kept.Reveal())
			if escrow != nil {
				require.ErrorIs(t, err, escrow)
			}
			p.cancel()
			r, err := w.do(t, rotate, nil)
			require.NoError(t, err)
			require.NoError(t, w.over(r))
			assert.Equal(t, kept.Reveal(), w.inSinks()[0])
		})
	}
}

// Waits that are too long for the policy end the run, which says when to go on.
func TestMaxWait(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{-1, 2 * time.Second} {
		scene(t, paired, func(t *testing.T, w *world) {
			runs := 0
			for {
				runs++
				require.Less(t, runs, 20)
				start := time.Now()
				r, err := w.do(t, rotate, func(j *rotation.Job) {
					j.Policy.MaxWait = limit
					j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Minute))
				})
				require.NoError(t, err)
				assert.LessOrEqual(t, time.Since(start), max(limit, 0))
				if r.ResumeAt.IsZero() {
					assert.Equal(t, rotation.StateDone, r.State)
					break
				}
				assert.Equal(t, rotation.StateConverging, r.State)
				pass(t.Context(), time.Until(r.ResumeAt))
			}
			assert.Equal(t, 2, runs)
		})
	}
}

// Readers that must restart are waited for until they say so.
func TestAcknowledge(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		asked := 0
		start := time.Now()
		_, err := w.do(t, rotate, func(j *rotation.Job) {
			j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN")
			j.Acknowledge = func(_ context.Context, token keywright.Secret) error {
				assert.Equal(t, w.inSinks()[1], token.Reveal())
				if asked++; time.Since(start) < time.Hour {
					return rotation.ErrNotReady
				}
				return nil
			}
		})
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(start), time.Hour)
		assert.Greater(t, asked, 100)
		assert.Less(t, asked, 500)
	})
}

// A client of the program itself gets the new token as soon as it is accepted,
// and the old one back when the rotation is taken back.
func TestSelf(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		self := keywright.NewRotatingToken(keywright.NewSecret(w.inSinks()[0]))
		token := func() string {
			s, err := self.Token(t.Context())
			require.NoError(t, err)
			return s.Reveal()
		}
		with := func(j *rotation.Job) { j.Self = self }
		stopAt(t, w, rotation.StateConverging, with)
		assert.Equal(t, w.inSinks()[0], token())
		clear(w.held)
		_, err := w.do(t, rollback, with)
		require.NoError(t, err)
		assert.Equal(t, w.inSinks()[0], token())
		// A program that was started anew learns it from the journal.
		stopAt(t, w, rotation.StateConverging, nil)
		_, err = w.do(t, resume, with)
		require.NoError(t, err)
		assert.Equal(t, w.inSinks()[0], token())
	})
}

// A plan says what would happen, changes nothing, and encodes as JSON.
func TestPlan(t *testing.T) {
	t.Parallel()
	for s, want := range map[strategyName][]string{
		paired:  {"rotate app: keys 1 and 2 by ricloud-paired", "POST /keys/{the idle one}/rotate", "RETIRING", "POINT OF NO RETURN", "accepted until it is retired", "file /app/token: lag 1s"},
		overlap: {"rotate app: key 1 by ricloud-overlap", "POST /keys/1/rotate", "accepted for 6h0m0s", "needs 12m1s of 6h0m0s", "no way back"},
		swap:    {"POST /credentials/ with a marker", "give the new key its full life", "the old key is idle", "DELETE /credentials/{old}"},
		inPlace: {"/rotate/", "the old token is refused from the call on"},
	} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			scene(t, s, func(t *testing.T, w *world) {
				p := w.start(t.Context(), 0)
				plan, err := p.engine().Plan(p.ctx, p.job())
				require.NoError(t, err)
				text := plan.String()
				for _, line := range want {
					assert.Contains(t, text, line)
				}
				no := 0
				for _, step := range plan.Steps {
					assert.NotEmpty(t, step.Crash)
					if step.NoWay {
						no++
					}
				}
				assert.Equal(t, 1, no, "one point of no return")
				b, err := json.Marshal(plan)
				require.NoError(t, err)
				var back rotation.Plan
				require.NoError(t, json.Unmarshal(b, &back))
				assert.Equal(t, text, back.String())
				w.say("%s %s", text, b)
				assert.Empty(t, w.disk.Names("/state"), "a plan leaves nothing behind")
				assert.Empty(t, w.sent)
				p.cancel()

				stopAt(t, w, rotation.StateIssued, nil)
				p = w.start(t.Context(), 0)
				plan, err = p.engine().Plan(p.ctx, p.job())
				require.NoError(t, err)
				assert.Equal(t, rotation.StateIssued, plan.Resumes)
				assert.Contains(t, plan.String(), "is under way, in ISSUED")
			})
		})
	}
}

// A plan would pass, and the rotation fail at once.
func TestPlanFailsAsRotate(t *testing.T) {
	t.Setenv("KEYWRIGHT_TEST_MALFORMED_KEY", "abcd")
	yes := true
	for name, c := range map[string]struct {
		dir    string
		option rotation.Option
		before func(t *testing.T, w *world)
		is     error
		text   string
	}{
		"no sealing key in the environment": {option: rotation.WithSealer(rotation.SealKeyEnv("KEYWRIGHT_TEST_NO_SUCH_KEY")), is: rotation.ErrJournal, text: "KEYWRIGHT_TEST_NO_SUCH_KEY"},
		"a malformed one":                   {option: rotation.WithSealer(rotation.SealKeyEnv("KEYWRIGHT_TEST_MALFORMED_KEY")), is: rotation.ErrJournal, text: "64 hexadecimal digits"},
		"a malformed file": {
			option: rotation.WithSealer(rotation.SealKeyFile("/app/key")), is: rotation.ErrJournal, text: "64 hexadecimal digits",
			before: func(_ *testing.T, w *world) { w.disk.WriteFile("/app/key", []byte("abcd\n"), 0o600) },
		},
		"a file that others may read": {
			option: rotation.WithSealer(rotation.SealKeyFile("/app/key")), is: rotation.ErrJournal, text: "lets others in",
			before: func(_ *testing.T, w *world) {
				w.disk.WriteFile("/app/key", []byte(strings.Repeat("ab", 32)), 0o644)
			},
		},
		"no directory for the sealing key": {option: rotation.WithSealer(rotation.SealKeyFile("/nowhere/key")), is: fs.ErrNotExist, text: "/nowhere"},
		"a sealer that is down":            {option: rotation.WithSealer(failingSealer{rotation.SealKeyFile("/app/key"), &yes}), is: errSealer},
		"a sealing key that is gone": {
			option: rotation.WithSealer(rotation.SealKeyFile("/app/key")), is: rotation.ErrJournal, text: "gone",
			before: func(t *testing.T, w *world) {
				stopAt(t, w, rotation.StateConverging, nil)
			},
		},
		"no parent of the journal": {dir: "/nowhere/state", is: fs.ErrNotExist, text: "/nowhere"},
		"a parent that is a file": {dir: "/file/state", text: "not a directory", before: func(_ *testing.T, w *world) {
			w.disk.WriteFile("/file", nil, 0o600)
		}},
		"a journal that others may use": {is: rotation.ErrJournal, text: "/state", before: func(_ *testing.T, w *world) { w.disk.Chmod("/state", 0o755) }},
		"a job that others may use": {is: rotation.ErrJournal, text: "/state/app", before: func(_ *testing.T, w *world) {
			w.disk.MkdirAll("/state/app")
			w.disk.Chmod("/state/app", 0o750)
		}},
		"a journal that is a link":           {dir: "/link", before: func(_ *testing.T, w *world) { w.disk.Symlink("/state", "/link") }},
		"a parent that is a link to nothing": {dir: "/link/state", is: fs.ErrNotExist, before: func(_ *testing.T, w *world) { w.disk.Symlink("/nowhere", "/link") }},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, paired, func(t *testing.T, w *world) {
				if c.before != nil {
					c.before(t, w)
				}
				if c.dir == "" {
					c.dir = "/state"
				}
				opts := []rotation.Option{rotation.WithFS(w.start(t.Context(), 0).disk)}
				if c.option != nil {
					opts = append(opts, c.option)
				}
				e, err := rotation.Open(c.dir, opts...)
				require.NoError(t, err)
				p := w.start(t.Context(), 0)
				defer p.cancel()
				names := append(w.disk.Names("/state"), w.disk.Names("/app")...)
				_, err = e.Plan(p.ctx, p.job())
				require.Error(t, err)
				if c.is != nil {
					require.ErrorIs(t, err, c.is)
				}
				require.ErrorContains(t, err, c.text)
				assert.Equal(t, names, append(w.disk.Names("/state"), w.disk.Names("/app")...), "a plan leaves nothing behind")
				_, err = e.Rotate(p.ctx, p.job())
				require.Error(t, err)
				if c.is != nil {
					require.ErrorIs(t, err, c.is)
				}
			})
		})
	}
}

// Where the journal is yet to be made, a plan passes and makes nothing.
func TestPlanOfAJournalToBeMade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dir, key string
		before   func(w *world)
	}{
		"the default":             {dir: "/app/state", key: "/app/state/sealing.key"},
		"a key elsewhere":         {dir: "/app/state", key: "/app/key"},
		"a parent that is a link": {dir: "/link/state", key: "/link/state/sealing.key", before: func(w *world) { w.disk.Symlink("/app", "/link") }},
		"a parent of everybody":   {dir: "/tmp/state", key: "/tmp/state/sealing.key", before: func(w *world) { w.disk.MkdirAll("/tmp"); w.disk.Chmod("/tmp", 0o777) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene(t, paired, func(t *testing.T, w *world) {
				if c.before != nil {
					c.before(w)
				}
				p := w.start(t.Context(), 0)
				defer p.cancel()
				e, err := rotation.Open(c.dir, rotation.WithFS(p.disk), rotation.WithSealer(rotation.SealKeyFile(c.key)))
				require.NoError(t, err)
				_, err = e.Plan(p.ctx, p.job())
				require.NoError(t, err)
				assert.NotContains(t, w.disk.Names("/app"), "state")
				assert.NotContains(t, w.disk.Names("/app"), "key")
				_, err = e.Rotate(p.ctx, p.job())
				require.NoError(t, err)
			})
		})
	}
}

// The same on a real disk, whose directory may not be written by us.
func TestPlanMayNotWrite(t *testing.T) {
	t.Parallel()
	if os.Geteuid() <= 0 || runtime.GOOS == "windows" {
		t.Skip("whoever runs this may write everywhere")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500)) //nolint:gosec // a directory
	e, err := rotation.Open(filepath.Join(dir, "state"))
	require.NoError(t, err)
	p := newToy("a")
	job := rotation.Job{Name: "a", Strategy: toyStrategy{p}, Sinks: []sink.Sink{(&memory{token: p.newest()}).sink()}}
	_, err = e.Plan(t.Context(), job)
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = e.Rotate(t.Context(), job)
	require.ErrorIs(t, err, fs.ErrPermission)
}

// What is under way belongs to its strategy; what is finished does not.
func TestOtherStrategy(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		other := func(j *rotation.Job) {
			j.Strategy = rotation.RicloudOverlap{Client: j.Strategy.(rotation.RicloudPaired).Client, Key: 1}
		}
		stopAt(t, w, rotation.StateIssued, nil)
		_, err := w.do(t, resume, other)
		var refused *rotation.RefusedError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, rotation.ReasonUnfinished, refused.Reason)
		_, err = w.do(t, rollback, nil)
		require.NoError(t, err)
		_, err = w.do(t, rotate, other)
		require.NoError(t, err)
	})
}

// A journal that was sealed with another key is not used, and nothing is sent.
func TestOtherSealingKey(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StateIssued, nil)
		w.disk.WriteFile("/state/sealing.key", []byte(strings.Repeat("ab", 32)), 0o600)
		sent := len(w.sent)
		_, err := w.do(t, rotate, nil)
		require.ErrorIs(t, err, rotation.ErrJournal)
		assert.Len(t, w.sent, sent)
	})
}

// A journal whose latest record is damaged never leads to a blind rotation.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	for _, s := range strategies {
		for _, state := range []rotation.State{
			rotation.StatePlanned, rotation.StateIntent, rotation.StateIssued, rotation.StateVerified,
			rotation.StateDistributing, rotation.StateConverging, rotation.StateRetiring, rotation.StateDone,
		} {
			t.Run(string(s)+" "+string(state), func(t *testing.T) {
				t.Parallel()
				scene(t, s, func(t *testing.T, w *world) {
					stopAt(t, w, state, nil)
					// The call that the state announces may have been sent.
					b, _ := w.disk.ReadFile("/state/app/state")
					b[len(b)/3] ^= 0x40
					b[100] ^= 0x40
					w.disk.WriteFile("/state/app/state", b, 0o600)
					r, err := w.do(t, resume, nil)
					if state == rotation.StatePlanned { // the first record that there was
						require.ErrorIs(t, err, rotation.ErrJournal)
						assert.Empty(t, w.sent)
						return
					}
					require.NoError(t, err)
					assert.Equal(t, rotation.StateDone, r.State)
					require.NoError(t, w.problem)
					issued := 0
					for _, c := range w.sent {
						if !c.forced && (c.op == "rotate" || c.op == "create") {
							issued++
						}
					}
					assert.LessOrEqual(t, issued, 1, "it was asked for once")
				})
			})
		}
	}
}

// Status needs no lock and no key, and has no token.
func TestStatus(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		e := w.start(t.Context(), 0).engine()
		s, err := e.Status(t.Context(), "app")
		require.NoError(t, err)
		assert.Equal(t, rotation.StateIdle, s.State)
		_, err = e.Status(t.Context(), "../app")
		require.ErrorIs(t, err, rotation.ErrRefused)
		stopAt(t, w, rotation.StateConverging, nil)
		s, err = e.Status(t.Context(), "app")
		require.NoError(t, err)
		assert.Equal(t, "ricloud-overlap", s.Strategy)
		assert.Equal(t, rotation.SinkConfirmed, s.Sinks[1].State)
		assert.WithinDuration(t, time.Now().Add(6*time.Hour), s.Deadline, time.Minute)
		b, err := json.Marshal(s)
		require.NoError(t, err)
		w.say("%s %+v", b, *s)
		w.check()
		assert.Positive(t, len(w.secrets))
	})
}

// Nobody would know why a rotation does not go on.
func TestStatusSaysWhy(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		var answer func(token string) error
		with := func(j *rotation.Job) {
			j.Policy.MaxWait = -1
			j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN")
			j.Acknowledge = func(_ context.Context, token keywright.Secret) error { return answer(token.Reveal()) }
		}
		answer = func(token string) error { return errors.New("exit status 3: no readers of " + token) }
		for range 2 {
			_, err := w.do(t, rotate, with)
			for err == nil { // the lag
				pass(t.Context(), time.Second)
				_, err = w.do(t, rotate, with)
			}
			require.ErrorIs(t, err, rotation.ErrUnfinished)
			s := w.status(t)
			assert.Equal(t, rotation.StateConverging, s.State)
			assert.Equal(t, "exit status 3: no readers of [REDACTED]", s.Problem)
		}
		// A failure that may pass is one too; a wait is none.
		answer = func(string) error { return fmt.Errorf("%w: 503", keywright.ErrServer) }
		_, err := w.do(t, resume, with)
		require.NoError(t, err)
		assert.Contains(t, w.status(t).Problem, "503")
		answer = func(string) error { return rotation.ErrNotReady }
		_, err = w.do(t, resume, with)
		require.NoError(t, err)
		assert.Empty(t, w.status(t).Problem)

		// What is interrupted says what it was waiting after.
		p := w.start(t.Context(), 0)
		job := p.job()
		with(&job)
		job.Policy.MaxWait = 0
		job.Acknowledge = func(context.Context, keywright.Secret) error {
			time.AfterFunc(time.Millisecond, p.cancel)
			return fmt.Errorf("%w: 502", keywright.ErrServer)
		}
		_, err = p.engine().Resume(p.ctx, job)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.ErrorIs(t, err, context.Canceled)
		assert.Contains(t, w.status(t).Problem, "502")

		// It is not in what comes after.
		answer = func(string) error { return nil }
		_, err = w.do(t, func(_ *rotation.Engine, ctx context.Context, j rotation.Job) (*rotation.Result, error) {
			e, err := rotation.Open("/state", rotation.WithFS(w.disk), rotation.WithObserver(func(v rotation.Event) {
				if c, ok := v.(rotation.StateChanged); ok && c.To == rotation.StateRetiring {
					assert.Empty(t, w.status(t).Problem)
				}
			}))
			require.NoError(t, err)
			return e.Resume(ctx, j)
		}, with)
		require.NoError(t, err)
		assert.Equal(t, rotation.StateDone, w.status(t).State)
		assert.Empty(t, w.status(t).Problem)
		b, ok := w.disk.ReadFile("/state/app/audit.jsonl")
		require.True(t, ok)
		assert.NotContains(t, string(b), `"problem"`)
	})
}

// Nor why one was not begun that an earlier run had planned.
func TestStatusSaysWhyNotBegun(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		stopAt(t, w, rotation.StatePlanned, nil)
		operation := w.status(t).Operation
		w.inject(keywrighttest.Fault{Do: keywrighttest.Answer, Status: 500, Times: -1})
		_, err := w.do(t, resume, nil)
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		s := w.status(t)
		assert.Equal(t, rotation.StatePlanned, s.State)
		assert.Contains(t, s.Problem, "500")
		assert.Equal(t, operation, s.Operation, "nothing else of that run is kept")
		w.clear()
		_, err = w.do(t, resume, nil)
		require.NoError(t, err)
		assert.Empty(t, w.status(t).Problem)
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	_, err := rotation.Open("")
	require.Error(t, err)
	_, err = rotation.Open("", rotation.WithJournal(rotation.NewDirJournal("/state")), rotation.WithSealer(rotation.SealKeyEnv("K")))
	require.NoError(t, err)
	for _, opt := range []rotation.Option{rotation.WithJournal(nil), rotation.WithSealer(nil), rotation.WithClock(nil)} {
		_, err = rotation.Open("/state", opt)
		require.Error(t, err)
	}
}
