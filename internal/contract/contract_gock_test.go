package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gopkg.in/h2non/gock.v1"

	"github.com/keywright/keywright"
)

// intercept gives a client whose every request gock answers, and fails the
// test for one that was not expected or not made. gock is attached to the
// inner http.Client: outside of the retry loop it would hide it.
func intercept(t *testing.T) *http.Client {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{}}
	gock.InterceptClient(hc)
	t.Cleanup(func() {
		assert.True(t, gock.IsDone(), "a request was not made")
		assert.False(t, gock.HasUnmatchedRequest(), "a request was not expected")
		gock.RestoreClient(hc)
		gock.OffAll()
	})
	return hc
}

// strict matches method, scheme, host, escaped path, query, the headers that
// matter and the body, each as a whole: gock's own matchers take paths and
// hosts for regular expressions and ignore what a query has too much.
func strict(method, rawURL, query, authorization, body string) *gock.MockMatcher {
	m := gock.NewEmptyMatcher()
	m.Add(func(r *http.Request, _ *gock.Request) (bool, error) {
		var sent []byte
		if r.Body != nil {
			var err error
			if sent, err = io.ReadAll(r.Body); err != nil {
				return false, err
			}
			r.Body = io.NopCloser(bytes.NewReader(sent))
		}
		return r.Method == method && r.URL.Scheme+"://"+strings.ToLower(r.URL.Host)+r.URL.EscapedPath() == rawURL &&
			r.URL.RawQuery == query && r.Header.Get("Authorization") == authorization && sameJSON(string(sent), body), nil
	})
	return m
}

func sameJSON(a, b string) bool {
	if a == "" || b == "" {
		return a == b
	}
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// expect registers the next request, and returns its answer to be filled in.
// gock.New also makes gock intercept at all.
func expect(method, rawURL, query, authorization, body string) *gock.Response {
	mock := gock.New(rawURL)
	mock.Mock.SetMatcher(strict(method, rawURL, query, authorization, body))
	return mock.Response
}

func ricloud(t *testing.T) *keywright.Ricloud {
	t.Helper()
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithToken("a-token-0123456789"),
		keywright.WithHTTPClient(intercept(t)), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}))
	require.NoError(t, err)
	return rc
}

const base = "https://ricloud-api.reincubate.com"

func TestKeyRotate(t *testing.T) {
	rc := ricloud(t)
	expect("POST", base+"/keys/7/rotate", "", "Token a-token-0123456789", `{"force":true}`).
		Status(200).BodyString(`{"id":7,"token":"a-new-token-0123456789"}`)
	key, err := rc.Key.RotateWithID(t.Context(), 7, keywright.KeyRotateParams{Force: true})
	require.NoError(t, err)
	assert.Equal(t, "a-new-token-0123456789", key.Token.Reveal())
}

func TestKeyRotateWithoutForceSendsAnEmptyObject(t *testing.T) {
	rc := ricloud(t)
	expect("POST", base+"/keys/7/rotate", "", "Token a-token-0123456789", `{}`).
		Status(200).BodyString(`{"id":7,"token":"a-new-token-0123456789"}`)
	_, err := rc.Key.RotateWithID(t.Context(), 7, keywright.KeyRotateParams{})
	require.NoError(t, err)
}

func TestKeyList(t *testing.T) {
	rc := ricloud(t)
	expect("GET", base+"/keys", "limit=2&state=active", "Token a-token-0123456789", "").
		Status(200).BodyString(`{"data":[{"id":9},{"id":8}],"has_more":true}`)
	expect("GET", base+"/keys", "after_id=8&limit=2&state=active", "Token a-token-0123456789", "").
		Status(200).BodyString(`{"data":[{"id":7}],"has_more":false}`)
	keys, err := keywright.Collect(rc.Key.All(t.Context(), keywright.KeyListParams{State: keywright.KeyActive, Limit: 2}), 10)
	require.NoError(t, err)
	assert.Len(t, keys, 3)
}

func TestCredentialUpdateIsTriState(t *testing.T) {
	ad, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithToken("a-token-0123456789"), keywright.WithHTTPClient(intercept(t)))
	require.NoError(t, err)
	const id = "c1d2e3f4-0000-4000-8000-000000000100"
	expect("PATCH", "https://platform.acedata.cloud/api/v1/credentials/"+id, "", "Bearer a-token-0123456789", `{"limited_amount":null,"name":"ci"}`).
		Status(200).BodyString(`{"id":"` + id + `","name":"ci"}`)
	_, err = ad.Credential.UpdateWithID(t.Context(), id, keywright.CredentialUpdateParams{Name: keywright.Set("ci"), LimitedAmount: keywright.Null[float64]()})
	require.NoError(t, err)
}

// The matcher itself must refuse what is merely similar.
func TestStrictMatcherIsStrict(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"longer path":    func(r *http.Request) { r.URL.Path += "/rotate" },
		"other host":     func(r *http.Request) { r.URL.Host += ".example" },
		"more query":     func(r *http.Request) { r.URL.RawQuery += "&x=1" },
		"other token":    func(r *http.Request) { r.Header.Set("Authorization", "Token x") },
		"other body":     func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`[{"a":1}]`)) },
		"in clear":       func(r *http.Request) { r.URL.Scheme = "http" },
		"another method": func(r *http.Request) { r.Method = "PUT" },
	} {
		m := strict("POST", "https://h.example/keys/1", "a=b", "Token t", `{"a":1}`)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://h.example/keys/1?a=b", strings.NewReader(`{"a": 1}`))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Token t")
		ok, err := m.Match(r, nil)
		require.NoError(t, err)
		assert.True(t, ok)
		change(r)
		ok, err = m.Match(r, nil)
		require.NoError(t, err)
		assert.False(t, ok, name)
	}
}

// An unexpected request is an error, not a call to the real provider.
func TestUnexpectedRequestIsRefused(t *testing.T) {
	hc := &http.Client{Transport: &http.Transport{}}
	gock.InterceptClient(hc)
	gock.New("https://elsewhere.example").Get("/never").Reply(200)
	defer func() {
		gock.RestoreClient(hc)
		gock.CleanUnmatchedRequest()
		gock.OffAll()
	}()
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithToken("a-token-0123456789"),
		keywright.WithHTTPClient(hc), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}))
	require.NoError(t, err)
	_, err = rc.Key.Current(t.Context())
	var transport *keywright.TransportError
	require.True(t, errors.As(err, &transport))
}

// gock's state is global: a test that uses it must not run beside another.
func TestGockIsNotUsedInParallel(t *testing.T) {
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(e.Name())
		require.NoError(t, err)
		assert.NotContains(t, string(b), "t."+"Parallel()", e.Name())
	}
}
