package keywright_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

const (
	tokenA = "token-a-0123456789abcdef"
	tokenB = "token-b-0123456789abcdef"
)

func tokenOf(t *testing.T, s keywright.TokenSource) string {
	t.Helper()
	got, err := s.Token(t.Context())
	require.NoError(t, err)
	return got.Reveal()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func TestFileToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "token")
		source := keywright.FileToken(path)
		_, err := source.Token(t.Context())
		require.ErrorIs(t, err, os.ErrNotExist)
		write(t, path, "")
		_, err = source.Token(t.Context())
		require.ErrorIs(t, err, keywright.ErrInvalidToken)
		write(t, path, " "+tokenA+"\n")
		assert.Equal(t, tokenA, tokenOf(t, source))
		write(t, path, tokenB)
		assert.Equal(t, tokenA, tokenOf(t, source), "looked at once a second")
		time.Sleep(time.Second)
		assert.Equal(t, tokenB, tokenOf(t, source))
		for _, bad := range []string{"", "half a tok", "****", "tok\x00en"} {
			write(t, path, bad)
			time.Sleep(time.Second)
			assert.Equal(t, tokenB, tokenOf(t, source), "%q keeps the last good token", bad)
		}
		require.NoError(t, os.Remove(path))
		time.Sleep(time.Second)
		assert.Equal(t, tokenB, tokenOf(t, source))
		write(t, path, tokenA)
		time.Sleep(time.Second)
		assert.Equal(t, tokenA, tokenOf(t, source))
		write(t, path, string(make([]byte, 65<<10)))
		time.Sleep(time.Second)
		assert.Equal(t, tokenA, tokenOf(t, source))
	})
}

// Kubernetes switches a directory of symbolic links in one rename.
func TestFileTokenSurvivesSymlinkSwap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for name, value := range map[string]string{"v1": tokenA, "v2": tokenB} {
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			write(t, filepath.Join(dir, name, "token"), value)
		}
		require.NoError(t, os.Symlink("v1", filepath.Join(dir, "..data")))
		require.NoError(t, os.Symlink("..data/token", filepath.Join(dir, "token")))
		source := keywright.FileToken(filepath.Join(dir, "token"))
		assert.Equal(t, tokenA, tokenOf(t, source))
		require.NoError(t, os.Symlink("v2", filepath.Join(dir, "..tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		time.Sleep(time.Second)
		assert.Equal(t, tokenB, tokenOf(t, source))
	})
}

func TestFileToken_Reload(t *testing.T) {
	t.Parallel()
	a, b := keywright.NewSecret(tokenA), keywright.NewSecret(tokenB)
	reload := func(t *testing.T, s keywright.Reloader, rejected keywright.Secret) string {
		t.Helper()
		got, err := s.Reload(t.Context(), rejected)
		require.NoError(t, err)
		return got.Reveal()
	}
	t.Run("the file has changed", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			write(t, path, tokenA)
			source := keywright.FileToken(path)
			assert.Equal(t, tokenA, tokenOf(t, source))
			write(t, path, tokenB)
			start := time.Now()
			assert.Equal(t, tokenB, reload(t, source, a), "without waiting for the next look")
			assert.Zero(t, time.Since(start))
			assert.Equal(t, tokenA, reload(t, source, b), "the provider lags: the token before still works")
		})
	})
	t.Run("the file lags", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			write(t, path, tokenA)
			source := keywright.FileToken(path)
			assert.Equal(t, tokenA, tokenOf(t, source))
			go func() {
				time.Sleep(500 * time.Millisecond)
				_ = os.WriteFile(path, []byte(tokenB), 0o600)
			}()
			start := time.Now()
			assert.Equal(t, tokenB, reload(t, source, a))
			assert.InDelta(t, 0.5, time.Since(start).Seconds(), 0.05)
		})
	})
	t.Run("the file never changes", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			write(t, path, tokenA)
			source := keywright.FileToken(path)
			start := time.Now()
			assert.Equal(t, tokenA, reload(t, source, a))
			assert.InDelta(t, 2, time.Since(start).Seconds(), 0.05)
			start = time.Now()
			assert.Equal(t, tokenA, reload(t, source, a), "not waited for again")
			assert.Zero(t, time.Since(start))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			write(t, path, tokenB)
			_, err := keywright.FileToken(path).Reload(ctx, b)
			require.ErrorIs(t, err, context.Canceled)
		})
	})
	_, err := keywright.FileToken(filepath.Join(t.TempDir(), "none")).Reload(t.Context(), a)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRotatingToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := keywright.NewSecret(tokenA), keywright.NewSecret(tokenB)
		var zero keywright.RotatingToken
		_, err := zero.Token(t.Context())
		require.ErrorIs(t, err, keywright.ErrNoToken)
		source := keywright.NewRotatingToken(a)
		assert.Equal(t, tokenA, tokenOf(t, source))
		go func() {
			time.Sleep(time.Second)
			assert.True(t, source.Swap(b).Equal(a))
		}()
		got, err := source.Reload(t.Context(), a)
		require.NoError(t, err)
		assert.True(t, got.Equal(b), "waited for the swap")
		assert.True(t, source.Swap(b).IsZero(), "swapping in the same token replaces nothing")
		assert.True(t, source.Swap(keywright.Secret{}).IsZero())
		got, err = source.Reload(t.Context(), b)
		require.NoError(t, err)
		assert.True(t, got.Equal(a), "the token before is kept beside")
		got, err = source.Reload(t.Context(), a)
		require.NoError(t, err)
		assert.True(t, got.Equal(b))
		lonely := keywright.NewRotatingToken(a)
		for range 2 {
			got, err = lonely.Reload(t.Context(), a)
			require.NoError(t, err)
			assert.True(t, got.Equal(a))
		}
		source.Swap(keywright.NewSecret("two words"))
		_, err = source.Token(t.Context())
		require.ErrorIs(t, err, keywright.ErrInvalidToken)
	})
}

func TestEnvToken(t *testing.T) {
	source := keywright.EnvToken("KEYWRIGHT_TEST_TOKEN")
	_, err := source.Token(t.Context())
	require.ErrorIs(t, err, keywright.ErrNoToken)
	t.Setenv("KEYWRIGHT_TEST_TOKEN", tokenA)
	assert.Equal(t, tokenA, tokenOf(t, source))
	t.Setenv("KEYWRIGHT_TEST_TOKEN", tokenB)
	got, err := source.Reload(t.Context(), keywright.NewSecret(tokenA))
	require.NoError(t, err)
	assert.Equal(t, tokenB, got.Reveal())
	t.Setenv("KEYWRIGHT_TEST_TOKEN", "")
	_, err = source.Token(t.Context())
	require.ErrorContains(t, err, "KEYWRIGHT_TEST_TOKEN")
}

// failingSource is a token source that fails.
type failingSource struct{ err error }

func (f failingSource) Token(context.Context) (keywright.Secret, error) {
	return keywright.Secret{}, f.err
}

func TestTokenSourceFailures(t *testing.T) {
	t.Parallel()
	down := errors.New("vault is sealed")
	for name, tc := range map[string]struct{ err, want error }{
		"own error": {down, down}, "no token": {keywright.ErrNoToken, keywright.ErrNoToken}, "nothing": {nil, keywright.ErrNoToken},
	} {
		rc := ricloudAt(t, "https://ricloud.example", "", keywright.WithTokenSource(failingSource{tc.err}),
			keywright.WithHTTPClient(&http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
				t.Error("sent")
				return nil, down
			})}))
		_, err := rc.Key.Current(t.Context())
		require.ErrorIs(t, err, tc.want, name)
		assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(err))
		_, err = rc.Key.Create(t.Context(), keywright.KeyCreateParams{})
		require.ErrorIs(t, err, tc.want, name)
		assert.Equal(t, keywright.NotSent, keywright.OutcomeOf(err))
	}
}

// A service under load that reads its token from a file rides through a
// rotation of the very key it uses, with and without a grace period.
func TestRotationUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	for name, force := range map[string]bool{"grace period": false, "old token dies at once": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := keywrighttest.StartRicloud(t)
			path := filepath.Join(t.TempDir(), "token")
			write(t, path, fake.Token())
			service := ricloudAt(t, fake.URL(), "", keywright.WithTokenSource(keywright.FileToken(path)))
			own := keywright.NewRotatingToken(keywright.NewSecret(fake.Token()))
			rotator := ricloudAt(t, fake.URL(), "", keywright.WithTokenSource(own))
			var requests, failures atomic.Int64
			stop := make(chan struct{})
			var work sync.WaitGroup
			for range 8 {
				work.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						requests.Add(1)
						if _, err := service.Key.Current(context.WithoutCancel(t.Context())); err != nil && failures.Add(1) == 1 {
							t.Log(err)
						}
					}
				})
			}
			for range 3 {
				key, err := rotator.Key.Current(t.Context())
				require.NoError(t, err)
				require.NoError(t, rotator.Key.Rotate(t.Context(), key, keywright.KeyRotateParams{Force: force}))
				own.Swap(key.Token)
				time.Sleep(50 * time.Millisecond) // the file is late
				tmp := path + ".tmp"
				write(t, tmp, key.Token.Reveal())
				require.NoError(t, os.Rename(tmp, path))
				time.Sleep(100 * time.Millisecond)
			}
			close(stop)
			work.Wait()
			assert.Zero(t, failures.Load(), "of %d requests", requests.Load())
			assert.Greater(t, requests.Load(), int64(20))
		})
	}
}
