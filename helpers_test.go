package keywright_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
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
	base := []keywright.Option{keywright.WithoutEnvironment(), keywright.WithBaseURL(url), quick(), keywright.WithTimeout(10 * time.Second), keywright.WithSettleTime(2 * attemptTimeout)}
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
		quick(), keywright.WithTimeout(10 * time.Second), keywright.WithSettleTime(2 * attemptTimeout),
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

// rawServer serves HTTP with handle and returns its address.
func rawServer(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(handle)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// canned is a transport that answers every request with one body, from memory.
type canned struct {
	status int
	body   []byte
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return &http.Response{
		StatusCode: c.status, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(c.body)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(c.body)),
	}, nil
}

func cannedRicloud(t testing.TB, c *canned) *keywright.Ricloud {
	return ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: c}))
}

// keyPage is a page of n keys as ricloud sends it.
func keyPage(t testing.TB, n int) []byte {
	t.Helper()
	var key map[string]any
	require.NoError(t, json.Unmarshal(keywrighttest.Fixture("ricloud/key.json"), &key))
	items := make([]map[string]any, n)
	for i := range items {
		item := map[string]any{}
		maps.Copy(item, key)
		item["id"] = n - i
		item["token"] = "fake-token-key-" + strconv.Itoa(1000000+i) + "-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		items[i] = item
	}
	b, err := json.Marshal(map[string]any{"resource": "list", "data": items, "has_more": false, "total_count": n, "url": "/keys"})
	require.NoError(t, err)
	return b
}
