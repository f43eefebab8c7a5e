package keywright_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// quick makes retries wait next to nothing.
func quick() keywright.Option {
	return keywright.WithRetry(keywright.RetryPolicy{BaseDelay: time.Millisecond, ThrottleDelay: time.Millisecond})
}

// ricloud returns a client of fake that waits next to nothing.
func ricloud(t testing.TB, fake *keywrighttest.Ricloud, opts ...keywright.Option) *keywright.Ricloud {
	t.Helper()
	return ricloudAt(t, fake.URL(), fake.Token(), opts...)
}

func ricloudAt(t testing.TB, url, token string, opts ...keywright.Option) *keywright.Ricloud {
	t.Helper()
	base := []keywright.Option{keywright.WithoutEnvironment(), keywright.WithBaseURL(url), quick(), keywright.WithTimeout(10 * time.Second)}
	if token != "" {
		base = append(base, keywright.WithToken(token))
	}
	rc, err := keywright.NewRicloud(append(base, opts...)...)
	require.NoError(t, err)
	t.Cleanup(rc.CloseIdleConnections)
	return rc
}

// aceData returns a client of fake that waits next to nothing.
func aceData(t testing.TB, fake *keywrighttest.AceData, opts ...keywright.Option) *keywright.AceData {
	t.Helper()
	return aceDataAt(t, fake.URL(), fake.Token(), opts...)
}

func aceDataAt(t testing.TB, url, token string, opts ...keywright.Option) *keywright.AceData {
	t.Helper()
	base := []keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithToken(token),
		quick(), keywright.WithTimeout(10 * time.Second),
	}
	ad, err := keywright.NewAceData(append(base, opts...)...)
	require.NoError(t, err)
	t.Cleanup(ad.CloseIdleConnections)
	return ad
}

// roundTripFunc is a transport made of a function.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// counting wraps a transport and counts what goes through it.
func counting(n *atomic.Int64) keywright.Option {
	return keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(r *http.Request) (*http.Response, error) {
			n.Add(1)
			return next.RoundTrip(r)
		})
	})
}

// recoverer is what errors with an unknown outcome offer.
type recoverer interface {
	error
	Recover(context.Context) (*keywright.Recovery, error)
}

func ptr[T any](v T) *T { return &v }
