package keywright_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// What a provider, a network or a caller does that nobody would think of.

// rawAnswer serves one fixed answer, as bytes, to every request.
func rawAnswer(t *testing.T, answer string) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	addr := rawServerBytes(t, func(c net.Conn) {
		requests.Add(1)
		_, _ = io.WriteString(c, answer)
	})
	return "http://" + addr, requests
}

func rawServerBytes(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	return rawListener(t, func(c net.Conn) {
		buf := make([]byte, 64<<10) // a request of ours fits
		if _, err := c.Read(buf); err == nil {
			answer(c)
		}
	})
}

func TestOddStatuses(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"000", "099", "101", "199"} {
		url, _ := rawAnswer(t, "HTTP/1.1 "+status+" Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		rc := ricloudAt(t, url, "some-token-0123456789", keywright.WithTimeout(300*time.Millisecond))
		_, err := rc.Key.Create(t.Context(), keywright.KeyCreateParams{})
		require.ErrorIs(t, err, keywright.ErrOutcomeUnknown, status)
		_, err = rc.Key.Current(t.Context())
		require.Error(t, err, status)
	}
}

// An error whose body is cut off may come from anybody: it proves nothing.
func TestCutErrors(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 429} {
		url, requests := rawAnswer(t, fmt.Sprintf("HTTP/1.1 %d No\r\nContent-Length: 100\r\n\r\n{\"error\":", status))
		rc := ricloudAt(t, url, "some-token-0123456789")
		_, err := rc.Key.RotateWithID(t.Context(), 1, keywright.KeyRotateParams{})
		require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
		require.ErrorAs(t, err, new(*keywright.APIError))
		assert.Equal(t, int64(1), requests.Load())
	}
}

func TestCallersHTTPTraceIsLeftAlone(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	fake.Inject(keywrighttest.Retry("key.create", 429, ""), keywrighttest.Retry("key.create", 429, ""))
	var got atomic.Int64
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { got.Add(1) }})
	var meta keywright.Meta
	_, err := ricloud(t, fake).Key.Create(ctx, keywright.KeyCreateParams{}, keywright.WithMeta(&meta))
	require.NoError(t, err)
	assert.Equal(t, int64(3), got.Load(), "once for each attempt")
	assert.Equal(t, 3, meta.Writes)
}

func TestMetaOfPagesInFlight(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartAceData(t)
	fake.AddCredentials(60)
	ad := aceData(t, fake)
	for _, o := range []keywright.CallOption{keywright.WithParallel(4), keywright.WithPrefetch()} {
		var meta keywright.Meta
		for _, err := range ad.Credential.All(t.Context(), keywright.CredentialListParams{Limit: 5}, o, keywright.WithMeta(&meta)) {
			require.NoError(t, err)
			assert.Equal(t, 200, meta.StatusCode)
		}
	}
}

// A lost create is not taken for another call's resource.
func TestRecoverTakesNobodyElsesResource(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	lose := func(fake *keywrighttest.Ricloud, rc *keywright.Ricloud, when keywrighttest.Moment) recoverer {
		fake.Inject(keywrighttest.Fault{Op: "key.create", When: when, Do: keywrighttest.Drop})
		_, err := rc.Key.Create(ctx, keywright.KeyCreateParams{})
		var lost recoverer
		require.ErrorAs(t, err, &lost)
		return lost
	}
	t.Run("one that succeeded just before", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		rc := ricloud(t, fake)
		fake.Clock().Advance(time.Minute) // the key that was always there is too old
		_, err := rc.Key.Create(ctx, keywright.KeyCreateParams{})
		require.NoError(t, err)
		found, err := lose(fake, rc, keywrighttest.BeforeApply).Recover(ctx)
		require.NoError(t, err)
		assert.Equal(t, keywright.NotApplied.String(), found.Outcome.String())
	})
	t.Run("one that was there before, made by another program", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		fake.AddKeys(1) // just now
		rc := ricloud(t, fake)
		lose := func(when keywrighttest.Moment) *keywright.Recovery {
			t.Helper()
			before, err := rc.Key.List(ctx, keywright.KeyListParams{})
			require.NoError(t, err)
			fake.Inject(keywrighttest.Fault{Op: "key.create", When: when, Do: keywrighttest.Drop})
			_, err = rc.Key.Create(ctx, keywright.KeyCreateParams{}, keywright.WithExisting(before.Items[:1]...), keywright.WithExisting(before.Items[1:]...))
			var lost recoverer
			require.ErrorAs(t, err, &lost)
			found, err := lost.Recover(ctx)
			require.NoError(t, err)
			return found
		}
		assert.Equal(t, keywright.NotApplied, lose(keywrighttest.BeforeApply).Outcome)
		found := lose(keywrighttest.AfterApply)
		assert.Equal(t, keywright.Applied, found.Outcome)
		assert.Equal(t, keywright.KeyID(3), found.Resource().(*keywright.Key).ID)
	})
	t.Run("two that were lost", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		fake.Clock().Advance(time.Minute)
		rc := ricloud(t, fake)
		first, second := lose(fake, rc, keywrighttest.AfterApply), lose(fake, rc, keywrighttest.BeforeApply)
		found, err := first.Recover(ctx)
		require.NoError(t, err)
		require.Equal(t, keywright.Applied, found.Outcome)
		again, err := first.Recover(ctx)
		require.NoError(t, err)
		assert.NotEqual(t, keywright.NotApplied, again.Outcome, "and may be asked again")
		found, err = second.Recover(ctx)
		require.NoError(t, err)
		assert.NotContains(t, found.Candidates, again.Resource())
		assert.NotEqual(t, keywright.Applied, found.Outcome)
	})
	t.Run("more than is looked at", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		fake.AddKeys(1200)
		fake.Clock().Advance(time.Hour)
		found, err := lose(fake, ricloud(t, fake), keywrighttest.BeforeApply).Recover(ctx)
		require.NoError(t, err)
		assert.Equal(t, keywright.Ambiguous, found.Outcome)
	})
	t.Run("rows without a date", func(t *testing.T) {
		t.Parallel()
		fake := keywrighttest.StartRicloud(t)
		fake.Inject(keywrighttest.Fault{Op: "key.list", When: keywrighttest.AfterApply, Times: -1, Edit: func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), `"date_created"`, `"when"`))
		}})
		found, err := lose(fake, ricloud(t, fake), keywrighttest.AfterApply).Recover(ctx)
		require.NoError(t, err)
		assert.Equal(t, keywright.Ambiguous, found.Outcome)
	})
}

// Without WithSettleTime nothing is called absent before a minute is over,
// however short the time-out is.
func TestSettleTimeHasAFloor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{steps: []step{{err: io.ErrUnexpectedEOF}, {status: 200, body: `{"id":1,"token":"the-old-token-0123456789"}`}}}
		rc := defaults(t, p, keywright.WithTimeout(time.Second))
		key := &keywright.Key{ID: 1, Token: keywright.NewSecret("the-old-token-0123456789")}
		err := rc.Key.Rotate(t.Context(), key, keywright.KeyRotateParams{})
		var lost recoverer
		require.ErrorAs(t, err, &lost)
		start := time.Now()
		found, err := lost.Recover(t.Context())
		require.NoError(t, err)
		assert.Equal(t, keywright.NotApplied, found.Outcome)
		assert.GreaterOrEqual(t, time.Since(start), time.Minute)
	})
}

// A rotation by id that arrives late is waited for: the token that is there
// before would die.
func TestRecoverOfRotateWithIDWaitsUntilSettled(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartAceData(t)
	ad := aceData(t, fake)
	c, err := ad.Credential.Create(t.Context(), keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(fake.ApplicationID())})
	require.NoError(t, err)
	fake.Inject(keywrighttest.Fault{Op: "credential.rotate", When: keywrighttest.LateApply, Do: keywrighttest.Drop, Delay: time.Second})
	_, err = ad.Credential.RotateWithID(t.Context(), c.ID)
	var lost recoverer
	require.ErrorAs(t, err, &lost)
	found, err := lost.Recover(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fake.AcceptedTokens(string(c.ID)), []string{found.Resource().(*keywright.Credential).Token.Reveal()})
}

func TestDeleteTakesNoOneElsesWord(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	rc := ricloud(t, fake)
	hook, err := rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
	require.NoError(t, err)
	for _, op := range []string{"webhook_config.delete", "webhook_config.retrieve"} {
		fake.Inject(keywrighttest.Fault{Op: op, Status: 503, Body: `{"code":"not_found"}`, Times: -1})
	}
	err = rc.WebhookConfig.Delete(t.Context(), hook, keywright.WithSettleTime(100*time.Millisecond))
	require.ErrorIs(t, err, keywright.ErrServer)
	assert.NotErrorIs(t, err, keywright.ErrNotFound)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = rc.WebhookConfig.Delete(ctx, hook)
	require.ErrorIs(t, err, context.DeadlineExceeded, "stopped while looking")
	require.ErrorIs(t, err, keywright.ErrServer)
	require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
}

func TestSecretsInOddPlaces(t *testing.T) {
	t.Parallel()
	const token = "some-token-0123456789"
	e := answered(t, 403, http.Header{"X-Request-Id": {token[:5] + " " + token[5:]}, "Retry-After": {"-5"}}, "")
	assert.NotContains(t, e.Error(), token)
	assert.Zero(t, e.RetryAfter)
	old := "lettersonlyoldtoken"
	rc := cannedRicloud(t, &canned{400, []byte(`{"message":"token ` + old + ` is not good"}`)})
	err := rc.Key.Rotate(t.Context(), &keywright.Key{ID: 1, Token: keywright.NewSecret(old)}, keywright.KeyRotateParams{})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), old)
	path := filepath.Join(t.TempDir(), "r.ini")
	for _, line := range []string{"c2VjcmV0c2VjcmV0==", "token s3cr3ts3cr3t:4711"} {
		require.NoError(t, os.WriteFile(path, []byte("[api]\n"+line+"\n"), 0o600))
		_, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithConfigFile(path))
		require.ErrorContains(t, err, "unknown key in [api] (not shown)")
	}
}

func TestPagesAreBounded(t *testing.T) {
	t.Parallel()
	item := `{"id":1,"token":"abcdefgh"}`
	rc := cannedRicloud(t, &canned{200, []byte(`{"data":[` + strings.Repeat(item+",", 2000) + item + `],"has_more":false}`)})
	_, err := rc.Key.List(t.Context(), keywright.KeyListParams{Limit: 10})
	require.ErrorContains(t, err, "at most 1000 items")
	for _, body := range []string{`{"data":[{}]}`, `{"data":[{"id":1},{"id":null}]}`} {
		rc := cannedRicloud(t, &canned{200, []byte(body)})
		_, err := rc.Key.List(t.Context(), keywright.KeyListParams{})
		require.ErrorContains(t, err, "an item with an id", body)
	}
}

// A page does not keep its body alive. It runs alone, because it weighs the heap.
func TestPageLetsGoOfItsBody(t *testing.T) {
	const item = `{"id":1,"token":"abcdefgh"}`
	padded := `{"data":[` + item + `],"has_more":true,"pad":"` + strings.Repeat("x", 8<<20) + `"}`
	rc := cannedRicloud(t, &canned{200, []byte(padded)})
	var pages []*keywright.Page[keywright.Key]
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 3 {
		page, err := rc.Key.List(t.Context(), keywright.KeyListParams{})
		require.NoError(t, err)
		pages = append(pages, page)
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	assert.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(12<<20))
	runtime.KeepAlive(pages)
}

// Rows that are inserted while pages by offset are under way are drift, not a
// loop, even if they fill a page.
func TestInsertedRowsAreNoLoop(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartAceData(t)
	fake.AddCredentials(6)
	n := 0
	for _, err := range aceData(t, fake).Credential.All(t.Context(), keywright.CredentialListParams{Limit: 2}) {
		require.NoError(t, err)
		if n++; n == 2 {
			fake.AddCredentials(2)
		}
	}
	assert.Equal(t, 6, n)
}

func TestBaseURLWithEncodedSlash(t *testing.T) {
	t.Parallel()
	_, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithToken("some-token-0123456789"), keywright.WithBaseURL("https://ricloud.example/a%2Fb"))
	require.ErrorIs(t, err, keywright.ErrInvalidURL)
}
