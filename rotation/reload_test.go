package rotation_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// service is 32 workers that use a token as fast as they can.
type service struct {
	calls, failed atomic.Int64
	first         atomic.Pointer[error]
	stop          context.CancelFunc
	done          sync.WaitGroup
}

func startService(t *testing.T, url string, source keywright.TokenSource) *service {
	t.Helper()
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithTokenSource(source))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &service{stop: cancel}
	for range 32 {
		s.done.Go(func() {
			for ctx.Err() == nil {
				_, err := rc.Key.Current(ctx)
				if ctx.Err() != nil {
					return
				}
				s.calls.Add(1)
				if err != nil {
					s.failed.Add(1)
					s.first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		s.done.Wait()
		rc.CloseIdleConnections()
	})
	return s
}

// settle waits until n more calls were made.
func (s *service) settle(ctx context.Context, n int64) {
	for until := s.calls.Load() + n; s.calls.Load() < until && ctx.Err() == nil; {
		pass(ctx, time.Millisecond)
	}
}

// check ends the service: no call may have failed.
func (s *service) check(t *testing.T) {
	t.Helper()
	s.stop()
	s.done.Wait()
	t.Logf("%d calls, %d failed", s.calls.Load(), s.failed.Load())
	if err := s.first.Load(); err != nil {
		t.Errorf("%d of %d calls failed, the first: %v", s.failed.Load(), s.calls.Load(), *err)
	}
}

// A service that reads its token from the file that a rotation delivers to has
// no failed request, however badly the provider's overlap and the file go
// together.
func TestHotReload(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options []keywrighttest.Option
		rotate  func(t *testing.T, fake *keywrighttest.Ricloud, admin *keywright.Ricloud, path string)
	}{
		"long overlap": {rotate: func(t *testing.T, _ *keywrighttest.Ricloud, admin *keywright.Ricloud, path string) {
			byEngine(t, rotation.RicloudOverlap{Client: admin, Key: 1}, path)
		}},
		"overlap shorter than the poll": {rotate: func(t *testing.T, _ *keywrighttest.Ricloud, admin *keywright.Ricloud, path string) {
			// The old token is burnt as soon as the file is written, and the
			// service looks at the file once a second.
			s := rotation.RicloudPaired{Client: admin, Keys: [2]keywright.KeyID{1, 2}}
			byEngine(t, s, path)
			byEngine(t, s, path)
		}},
		"a provider that lags": {
			options: []keywrighttest.Option{keywrighttest.WithLag(300 * time.Millisecond)},
			rotate: func(t *testing.T, _ *keywrighttest.Ricloud, admin *keywright.Ricloud, path string) {
				// As a script does it that does not verify.
				key, err := admin.Key.RotateWithID(t.Context(), 1, keywright.KeyRotateParams{})
				require.NoError(t, err)
				put(t, path, key.Token)
			},
		},
		"no grace, and a late file": {rotate: func(t *testing.T, _ *keywrighttest.Ricloud, admin *keywright.Ricloud, path string) {
			key, err := admin.Key.RotateWithID(t.Context(), 1, keywright.KeyRotateParams{Force: true})
			require.NoError(t, err)
			pass(t.Context(), 50*time.Millisecond)
			put(t, path, key.Token)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := keywrighttest.StartRicloud(t, c.options...)
			fake.AddKeys(2)
			admin, err := keywright.NewRicloud(quick(fake.URL(), keywright.WithToken(fake.TokenOf(3)))...)
			require.NoError(t, err)
			t.Cleanup(admin.CloseIdleConnections)
			path := filepath.Join(t.TempDir(), "token")
			put(t, path, keywright.NewSecret(fake.Token()))
			s := startService(t, fake.URL(), keywright.FileToken(path))
			s.settle(t.Context(), 500)
			c.rotate(t, fake, admin, path)
			pass(t.Context(), 1100*time.Millisecond) // the file is looked at once a second
			s.settle(t.Context(), 500)
			s.check(t)
		})
	}
}

func put(t *testing.T, path string, token keywright.Secret) {
	t.Helper()
	s := sink.File(path)
	before, err := s.Read(t.Context())
	if err != nil {
		require.True(t, errors.Is(err, os.ErrNotExist))
	}
	require.NoError(t, s.CompareAndWrite(t.Context(), before, token))
}

func byEngine(t *testing.T, s rotation.Strategy, path string) {
	t.Helper()
	e, err := rotation.Open(filepath.Join(filepath.Dir(path), "state"))
	require.NoError(t, err)
	r, err := e.Rotate(t.Context(), rotation.Job{
		Name: "app", Strategy: s, Sinks: []sink.Sink{sink.File(path, sink.WithLag(0))},
		Policy: rotation.Policy{SettleTime: 100 * time.Millisecond},
	})
	require.NoError(t, err)
	require.Equal(t, rotation.StateDone, r.State)
}

// A client that rotates the key it authenticates with goes on working, with
// nothing but a RotatingToken.
func TestSelfRotation(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(1)
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	put(t, path, keywright.NewSecret(fake.Token()))
	self := keywright.NewRotatingToken(keywright.NewSecret(fake.Token()))
	s := startService(t, fake.URL(), self)
	rc, err := keywright.NewRicloud(quick(fake.URL(), keywright.WithTokenSource(self))...)
	require.NoError(t, err)
	t.Cleanup(rc.CloseIdleConnections)
	e, err := rotation.Open(filepath.Join(dir, "state"))
	require.NoError(t, err)
	s.settle(t.Context(), 200)
	for range 4 {
		_, err = e.Rotate(t.Context(), rotation.Job{
			Name: "app", Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
			Sinks: []sink.Sink{sink.File(path, sink.WithLag(0))}, Self: self,
			Policy: rotation.Policy{SettleTime: 50 * time.Millisecond},
		})
		require.NoError(t, err)
		s.settle(t.Context(), 200)
	}
	s.check(t)
	token, err := self.Token(t.Context())
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, token.Reveal()+"\n", string(b))
}
