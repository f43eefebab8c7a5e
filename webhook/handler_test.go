package webhook_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/webhook"
)

const idB = "d2d8c1e3-63b5-4a1f-8e1f-2fe5a0c3b8f4"

// inbox is an accept function that counts.
type inbox struct {
	mu     sync.Mutex
	events []*webhook.Event
}

func (in *inbox) accept(_ context.Context, e *webhook.Event) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.events = append(in.events, e)
	return nil
}

// of returns the effects of one event.
func (in *inbox) of(id string) (events []*webhook.Event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, e := range in.events {
		if string(e.ID) == id {
			events = append(events, e)
		}
	}
	return events
}

// testClock is a clock that a test moves.
type testClock struct{ seconds atomic.Int64 }

func newClock() *testClock {
	c := new(testClock)
	c.seconds.Store(epoch.Unix())
	return c
}

func (c *testClock) now() time.Time { return time.Unix(c.seconds.Load(), 0) }

// serve starts a server.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	return srv
}

// sent is an answer.
type sent struct {
	status int
	header http.Header
	text   string
}

// deliver sends a request as a provider would, with the changes that edit makes.
func deliver(t *testing.T, url, signature string, body io.Reader, edit ...func(*http.Request)) sent {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	if signature != "" {
		req.Header.Set(webhook.Header, signature)
	}
	for _, f := range edit {
		f(req)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return sent{resp.StatusCode, resp.Header, string(text)}
}

// now signs with secretA at the epoch.
func now(b []byte) string { return sign(secretA, fmt.Sprint(epoch.Unix()), b) }

// record gives a request to a handler without a connection.
func record(ctx context.Context, h http.Handler, signature string, b []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/hooks", bytes.NewReader(b))
	req.Header.Set("Content-Type", "application/json")
	req.Header[webhook.Header] = []string{signature}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// hooked starts a fake ricloud that delivers to url, and has v accept that.
func hooked(t *testing.T, v *webhook.Verifier, url string, opts ...keywrighttest.Option) *keywrighttest.Ricloud {
	t.Helper()
	f := keywrighttest.StartRicloud(t, append(opts, keywrighttest.WithDeliveryDelays(time.Millisecond))...)
	rc := client(t, f)
	config, err := rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: url})
	require.NoError(t, err)
	require.NoError(t, v.SetSecrets(config.Secret))
	_, err = rc.Key.UpdateWithID(t.Context(), 1, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(config.ID)})
	require.NoError(t, err)
	return f
}

func client(t *testing.T, f *keywrighttest.Ricloud) *keywright.Ricloud {
	t.Helper()
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL(f.URL()),
		keywright.WithToken(f.Token()), keywright.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}),
		keywright.WithSettleTime(50*time.Millisecond), keywright.WithRetry(keywright.RetryPolicy{BaseDelay: time.Millisecond}))
	require.NoError(t, err)
	return rc
}

// realtime returns a verifier that has the system's clock.
func realtime(t *testing.T) *webhook.Verifier {
	t.Helper()
	v, err := webhook.NewVerifier([]keywright.Secret{keywright.NewSecret(secretA)})
	require.NoError(t, err)
	return v
}

func settled(t *testing.T, f *keywrighttest.Ricloud, id string) string {
	t.Helper()
	state, err := f.WaitDelivered(t.Context(), id)
	require.NoError(t, err)
	return state
}

// stores are made anew for each test.
var stores = map[string]func(*testing.T) webhook.DedupeStore{
	"memory": func(*testing.T) webhook.DedupeStore { return webhook.NewMemoryStore(0) },
	"file":   func(t *testing.T) webhook.DedupeStore { return webhook.NewFileStore(t.TempDir() + "/events") },
}

// handlerCells are the cells of the fault matrix about webhooks.
var handlerCells = map[string]func(*testing.T){
	"W01 valid": func(t *testing.T) {
		in, v := new(inbox), realtime(t)
		srv := serve(t, webhook.Handler(v, in.accept))
		f := hooked(t, v, srv.URL)
		id := f.Emit("task", "succeeded", map[string]any{"id": "t1"})
		assert.Equal(t, "delivered", settled(t, f, id))
		require.Len(t, in.of(id), 1)
		assert.Equal(t, webhook.TaskSucceeded, in.of(id)[0].Slug())
		for _, a := range f.Attempts() {
			if a.Event == id {
				assert.Equal(t, http.StatusNoContent, a.Status)
			}
		}
		for _, path := range []string{"", "/", "/hooks", "/hooks/" + idA, "/" + strings.ToUpper(idA)} {
			h := webhook.Handler(verifier(t, secretA), in.accept)
			got := deliver(t, serve(t, h).URL+path, now(body(idA)), bytes.NewReader(body(idA)))
			assert.Equal(t, sent{204, got.header, ""}, got, path)
		}
	},
	"W02 duplicate": func(t *testing.T) {
		for name, store := range stores {
			in, v := new(inbox), realtime(t)
			srv := serve(t, webhook.Handler(v, in.accept, webhook.WithStore(store(t))))
			f := hooked(t, v, srv.URL)
			id := f.Emit("session", "expired", map[string]any{"id": "s1"})
			assert.Equal(t, "delivered", settled(t, f, id))
			again := keywrighttest.Delivery{Edit: func(b []byte) []byte { // as in another attempt
				return bytes.Replace(b, []byte(`"retries":0`), []byte(`"retries":3`), 1)
			}}
			for _, d := range []keywrighttest.Delivery{{}, again} {
				status, err := f.Deliver(id, d)
				require.NoError(t, err)
				assert.Equal(t, 204, status, name)
			}
			assert.Len(t, in.of(id), 1, name)
		}
	},
	"W03 duplicate concurrent ×64": func(t *testing.T) {
		for name, store := range stores {
			in := new(inbox)
			srv := serve(t, webhook.Handler(verifier(t, secretA), in.accept, webhook.WithStore(store(t))))
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					assert.Equal(t, 204, deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA))).status)
				})
			}
			wg.Wait()
			assert.Len(t, in.of(idA), 1, name)
		}
	},
	"W04 replay after tolerance": func(t *testing.T) {
		in, clock, h := moving(t)
		assert.Equal(t, 204, record(t.Context(), h, now(body(idA)), body(idA)).Code)
		clock.seconds.Add(301)
		assert.Equal(t, 401, record(t.Context(), h, now(body(idA)), body(idA)).Code)
		assert.Len(t, in.of(idA), 1)
	},
	"W05 t=now+tol": func(t *testing.T) {
		in, clock, h := moving(t)
		clock.seconds.Add(-301)
		assert.Equal(t, 401, record(t.Context(), h, now(body(idA)), body(idA)).Code)
		assert.Empty(t, in.of(idA))
		clock.seconds.Add(1)
		assert.Equal(t, 204, record(t.Context(), h, now(body(idA)), body(idA)).Code)
	},
	"W06 t=now−tol": func(t *testing.T) {
		in, clock, h := moving(t)
		clock.seconds.Add(301)
		assert.Equal(t, 401, record(t.Context(), h, now(body(idA)), body(idA)).Code)
		assert.Empty(t, in.of(idA))
		clock.seconds.Add(-1)
		assert.Equal(t, 204, record(t.Context(), h, now(body(idA)), body(idA)).Code)
	},
	"W07 one bit flipped": func(t *testing.T) {
		in, _, h := moving(t)
		b := body(idA)
		signature := now(b)
		for i := range len(signature) * 8 {
			flipped := []byte(signature)
			flipped[i/8] ^= 1 << (i % 8)
			code := record(t.Context(), h, string(flipped), b).Code
			assert.True(t, code == 401 || code == 400, "bit %d of the header: %d", i, code)
		}
		for i := range len(b) * 8 {
			flipped := bytes.Clone(b)
			flipped[i/8] ^= 1 << (i % 8)
			assert.Equal(t, 401, record(t.Context(), h, signature, flipped).Code, "bit %d of the body", i)
		}
		assert.Empty(t, in.of(idA))
	},
	"W08 old secret": func(t *testing.T) {
		in, v := new(inbox), verifier(t, secretA)
		h := webhook.Handler(v, in.accept)
		require.NoError(t, v.SetSecrets(keywright.NewSecret(secretB), keywright.NewSecret(secretA)))
		assert.Equal(t, 204, record(t.Context(), h, now(body(idA)), body(idA)).Code)
		require.NoError(t, v.SetSecrets(keywright.NewSecret(secretB)))
		assert.Equal(t, 401, record(t.Context(), h, now(body(idB)), body(idB)).Code)
		assert.Empty(t, in.of(idB))
	},
	"W09 no or second header": func(t *testing.T) {
		in, _, h := moving(t)
		srv, good := serve(t, h), now(body(idA))
		for name, edit := range map[string]func(*http.Request){
			"none":          func(r *http.Request) { r.Header.Del(webhook.Header) },
			"empty":         func(r *http.Request) { r.Header.Set(webhook.Header, "") },
			"second":        func(r *http.Request) { r.Header.Add(webhook.Header, good) },
			"second, empty": func(r *http.Request) { r.Header.Add(webhook.Header, "") },
		} {
			assert.Equal(t, 400, deliver(t, srv.URL, good, bytes.NewReader(body(idA)), edit).status, name)
		}
		assert.Empty(t, in.of(idA))
	},
	"W10 body too large": func(t *testing.T) {
		in := new(inbox)
		const limit = 1 << 10
		srv := serve(t, webhook.Handler(verifier(t, secretA), in.accept, webhook.WithMaxBody(limit)))
		full := body(idA)
		full = append(full, bytes.Repeat([]byte(" "), limit-len(full))...)
		chunked := func(r *http.Request) { r.ContentLength = -1 }
		tooMuch := append(bytes.Clone(full), ' ')
		got := deliver(t, srv.URL, now(tooMuch), bytes.NewReader(tooMuch))
		assert.Equal(t, 413, got.status)
		assert.Equal(t, 413, deliver(t, srv.URL, now(tooMuch), bytes.NewReader(tooMuch), chunked).status)
		assert.Empty(t, in.of(idA))
		assert.Equal(t, 204, deliver(t, srv.URL, now(full), bytes.NewReader(full), chunked).status)
	},
	"W11 slow sender": func(t *testing.T) {
		in := new(inbox)
		srv := serve(t, webhook.Handler(verifier(t, secretA), in.accept, webhook.WithReadTimeout(100*time.Millisecond)))
		var slow sync.WaitGroup
		for i := range 32 {
			method, kind, status := "POST", "application/json", "408"
			switch i % 4 { // those who are refused early must not stay either
			case 1:
				method, status = "PUT", "405"
			case 2:
				kind, status = "text/plain", "415"
			}
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			require.NoError(t, err)
			_, err = fmt.Fprintf(conn, "%s /hooks HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
				method, kind, webhook.Header, now(body(idA)))
			require.NoError(t, err)
			slow.Go(func() {
				defer conn.Close()
				answer, err := io.ReadAll(conn) // until the server closes
				assert.NoError(t, err)
				assert.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 "+status), "%.40q", answer)
			})
		}
		assert.Equal(t, 204, deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA))).status, "others are served")
		slow.Wait()
		assert.Len(t, in.of(idA), 1)
	},
	"W12 client aborts": func(t *testing.T) {
		in := new(inbox)
		srv := serve(t, webhook.Handler(verifier(t, secretA), in.accept))
		b := body(idA)
		for range 32 {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			require.NoError(t, err)
			_, err = fmt.Fprintf(conn, "POST /hooks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
				webhook.Header, now(b), len(b), b[:len(b)/2])
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		srv.Close() // waits for all of them
		assert.Empty(t, in.of(idA))
	},
	"W13 wrong method or type": func(t *testing.T) {
		in, _, h := moving(t)
		srv := serve(t, h)
		for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"} {
			got := deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA)), func(r *http.Request) { r.Method = method })
			assert.Equal(t, 405, got.status, method)
			assert.Equal(t, "POST", got.header.Get("Allow"))
		}
		for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", ";", "application/json; ="} {
			got := deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA)), func(r *http.Request) { r.Header.Set("Content-Type", kind) })
			assert.Equal(t, 415, got.status, kind)
		}
		assert.Empty(t, in.of(idA))
		got := deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA)), func(r *http.Request) { r.Header.Set("Content-Type", "Application/JSON; charset=utf-8") })
		assert.Equal(t, 204, got.status)
	},
	"W14 signed garbage": func(t *testing.T) {
		in, v := new(inbox), realtime(t)
		srv := serve(t, webhook.Handler(v, in.accept))
		f := hooked(t, v, srv.URL)
		id := f.Emit("session", "expired", nil)
		settled(t, f, id)
		for _, b := range []string{"", "{", "garbage", "[]", "null", `{"id":"` + idA + `"}`, `{"type":"a","action":"b"}`, `{"id":"x","type":"a","action":"b"} trailing`,
			`{"id":"` + strings.Repeat("x", 300) + `","type":"a","action":"b"}`} {
			status, err := f.Deliver(id, keywrighttest.Delivery{Edit: func([]byte) []byte { return []byte(b) }})
			require.NoError(t, err)
			assert.Equal(t, 400, status, b)
		}
	},
	"W15 unknown type": func(t *testing.T) {
		in, v := new(inbox), realtime(t)
		srv := serve(t, webhook.Handler(v, in.accept))
		f := hooked(t, v, srv.URL)
		id := f.Emit("moon", "rose", map[string]any{"phase": "full"})
		assert.Equal(t, "delivered", settled(t, f, id))
		require.Len(t, in.of(id), 1)
		e := in.of(id)[0]
		assert.False(t, e.Known())
		assert.Equal(t, "moon.rose", e.Slug())
		assert.JSONEq(t, `{"phase":"full"}`, e.Data.Reveal())
		assert.Contains(t, e.Raw.Reveal(), `"moon"`)
	},
	"W16 handler panics": func(t *testing.T) {
		for name, store := range stores {
			in := new(inbox)
			calls := 0
			srv := serve(t, webhook.Handler(verifier(t, secretA), func(ctx context.Context, e *webhook.Event) error {
				if calls++; calls == 1 {
					panic("canary-panic")
				}
				return in.accept(ctx, e)
			}, webhook.WithStore(store(t))))
			got := deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA)))
			assert.Equal(t, 500, got.status, name)
			assert.Equal(t, "Internal Server Error\n", got.text)
			assert.Equal(t, 204, deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA))).status, name)
			assert.Len(t, in.of(idA), 1)
		}
	},
	"W17 handler slow": func(t *testing.T) {
		v := realtime(t)
		store := webhook.NewFileStore(t.TempDir() + "/events")
		srv := serve(t, webhook.Handler(v, store.Accept, webhook.WithStore(store)))
		f := hooked(t, v, srv.URL)
		ctx, stop := context.WithCancel(t.Context())
		processed := make(chan error)
		began := make(chan struct{}, 1)
		go func() {
			processed <- store.Process(ctx, func(ctx context.Context, _ *webhook.Event) error {
				select {
				case began <- struct{}{}:
				default:
				}
				<-ctx.Done() // as slow as can be
				return ctx.Err()
			})
		}()
		for i := range 10 {
			id := f.Emit("session", "expired", map[string]any{"id": fmt.Sprint(i)})
			start := time.Now()
			assert.Equal(t, "delivered", settled(t, f, id))
			assert.Less(t, time.Since(start), time.Second)
			<-began
			began <- struct{}{}
		}
		stop()
		require.ErrorIs(t, <-processed, context.Canceled)
		n, err := store.Pending(t.Context())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, n, 10, "nothing is lost")
	},
	"W18 queue full": func(t *testing.T) {
		for name, store := range stores {
			in, v := new(inbox), realtime(t)
			full := errors.New("the queue is full")
			refuse := map[keywright.EventID]int{}
			var mu sync.Mutex
			srv := serve(t, webhook.Handler(v, func(ctx context.Context, e *webhook.Event) error {
				mu.Lock()
				refuse[e.ID]++
				n := refuse[e.ID]
				mu.Unlock()
				if n < 4 {
					return full
				}
				return in.accept(ctx, e)
			}, webhook.WithStore(store(t))))
			f := hooked(t, v, srv.URL)
			id := f.Emit("session", "expired", nil)
			assert.Equal(t, "delivered", settled(t, f, id), name)
			assert.Len(t, in.of(id), 1, name)
			var statuses []int
			for _, a := range f.Attempts() {
				if a.Event == id {
					statuses = append(statuses, a.Status)
				}
			}
			assert.Equal(t, []int{503, 503, 503, 204}, statuses)
		}
		h := webhook.Handler(verifier(t, secretA), func(context.Context, *webhook.Event) error { return webhook.ErrBusy })
		assert.Equal(t, "30", record(t.Context(), h, now(body(idA)), body(idA)).Header().Get("Retry-After"))
	},
	"W19 crash between accept and ack": func(t *testing.T) {
		w := disk()
		in := new(inbox)
		p := w.Process()
		assert.Equal(t, 204, record(durable.NewContext(t.Context(), p), onDisk(t), now(body(idA)), body(idA)).Code)
		p.Kill() // and the answer never gets out
		again := bytes.Replace(body(idA), []byte(`"retries":0`), []byte(`"retries":1`), 1)
		for range 2 {
			ctx := durable.NewContext(t.Context(), w.Process())
			assert.Equal(t, 204, record(ctx, onDisk(t), now(again), again).Code)
			drain(t, ctx, in.accept)
		}
		assert.Len(t, in.of(idA), 1)
	},
	"W20 crash between accept and process": func(t *testing.T) {
		w := disk()
		in := new(inbox)
		p := w.Process()
		assert.Equal(t, 204, record(durable.NewContext(t.Context(), p), onDisk(t), now(body(idA)), body(idA)).Code)
		p.Kill()
		for range 2 {
			drain(t, durable.NewContext(t.Context(), w.Process()), in.accept)
		}
		require.Len(t, in.of(idA), 1)
		assert.Equal(t, string(body(idA)), in.of(idA)[0].Raw.Reveal())
	},
	"W21 path id ≠ body id": func(t *testing.T) {
		in, _, h := moving(t)
		srv := serve(t, h)
		assert.Equal(t, 400, deliver(t, srv.URL+"/hooks/"+idB, now(body(idA)), bytes.NewReader(body(idA))).status)
		assert.Empty(t, in.of(idA))
	},
	"W22 same id, other body": func(t *testing.T) {
		for name, store := range stores {
			in := new(inbox)
			h := webhook.Handler(verifier(t, secretA), in.accept, webhook.WithStore(store(t)))
			assert.Equal(t, 204, record(t.Context(), h, now(body(idA)), body(idA)).Code)
			for _, edit := range [][2]string{
				{`{"id":"s1"}`, `{"id":"s2"}`}, {`"expired"`, `"created"`}, {`"session"`, `"poll"`}, {`10:00:00Z`, `10:00:01Z`}, {`"retries"`, `"new":1,"retries"`},
			} {
				other := bytes.Replace(body(idA), []byte(edit[0]), []byte(edit[1]), 1)
				assert.Equal(t, 409, record(t.Context(), h, now(other), other).Code, "%s: %s", name, edit)
			}
			assert.Len(t, in.of(idA), 1)
		}
	},
}

func TestHandlerCells(t *testing.T) {
	t.Parallel()
	for name, play := range handlerCells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t)
		})
	}
}

// moving returns a handler whose clock can be moved.
func moving(t *testing.T) (*inbox, *testClock, http.Handler) {
	t.Helper()
	clock, in := newClock(), new(inbox)
	v, err := webhook.NewVerifier([]keywright.Secret{keywright.NewSecret(secretA)}, webhook.WithClock(clock.now))
	require.NoError(t, err)
	return in, clock, webhook.Handler(v, in.accept)
}

const storeDir = "/var/lib/events"

func disk() *memfs.FS {
	w := memfs.New()
	w.MkdirAll("/var/lib")
	return w
}

// onDisk returns the handler of a program that has just started.
func onDisk(t *testing.T) http.Handler {
	store := webhook.NewFileStore(storeDir)
	return webhook.Handler(verifier(t, secretA), store.Accept, webhook.WithStore(store))
}

// drain processes what waits, and stops.
func drain(t *testing.T, ctx context.Context, f func(context.Context, *webhook.Event) error) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	store := webhook.NewFileStore(storeDir)
	n, err := store.Pending(ctx)
	require.NoError(t, err)
	if n == 0 {
		stop()
	}
	err = store.Process(ctx, func(ctx context.Context, e *webhook.Event) error {
		err := f(ctx, e)
		if n--; n == 0 {
			stop()
		}
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
}

// Of several things that are wrong the first is answered.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	clock := newClock()
	v, err := webhook.NewVerifier([]keywright.Secret{keywright.NewSecret(secretA)}, webhook.WithClock(clock.now))
	require.NoError(t, err)
	h := webhook.Handler(v, new(inbox).accept, webhook.WithMaxBody(1<<10))
	statuses := []int{405, 415, 413, 400, 401, 401, 400}
	for first, status := range statuses {
		signed, seconds, secret := body(idA), "1570788000", secretA
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		req.Header.Set("Content-Type", "application/json")
		wrong := []func(){ // all from first on, and what is signed comes before the signature
			func() { req.Method = "GET" },
			func() { req.Header.Set("Content-Type", "text/plain") },
			func() { req.ContentLength = 1<<10 + 1 },
			func() { req.Header.Set(webhook.Header, "t=1") },
			func() { secret = secretB },
			func() { seconds = "1570000000" },
			func() { signed = []byte("{") },
		}
		for i := len(wrong) - 1; i >= first; i-- {
			if i == 3 {
				req.Header.Set(webhook.Header, sign(secret, seconds, signed))
			}
			wrong[i]()
		}
		if first > 3 {
			req.Header.Set(webhook.Header, sign(secret, seconds, signed))
		}
		req.Body = io.NopCloser(bytes.NewReader(signed))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		assert.Equal(t, status, w.Code, "from check %d on", first)
	}
}

// endless is a body without an end.
type endless struct{ left int64 }

func (e *endless) Read(b []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), e.left)
	e.left -= n
	return int(n), nil
}

// Senders of a GiB each take a MiB or two, for a moment, and others are served.
func TestGiantBodies(t *testing.T) {
	in := new(inbox)
	srv := serve(t, webhook.Handler(verifier(t, secretA), in.accept))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, &endless{left: 1 << 30})
			if !assert.NoError(t, err) {
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set(webhook.Header, now(body(idA)))
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err == nil { // else the server has closed before the answer was read
				assert.Equal(t, 413, resp.StatusCode)
				_ = resp.Body.Close()
			}
		})
	}
	assert.Equal(t, 204, deliver(t, srv.URL, now(body(idA)), bytes.NewReader(body(idA))).status)
	wg.Wait()
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<20), "all that was ever allocated")
	assert.Less(t, after.HeapSys-min(before.HeapSys, after.HeapSys), uint64(96<<20))
	assert.Len(t, in.of(idA), 1)
}

// Neither a log nor an answer holds a secret, a body or a signature.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	const canary = "canary-body-text"
	var mu sync.Mutex
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	text := []byte(strings.Replace(string(body(idA)), `"s1"`, `"`+canary+`"`, 1))
	var answers strings.Builder
	tokens := []string{canary, secretA, secretB, "canary-webhook"}
	accepts := []func(context.Context, *webhook.Event) error{
		func(context.Context, *webhook.Event) error { return nil },
		func(_ context.Context, e *webhook.Event) error {
			return fmt.Errorf("%s %s", e.Raw.Reveal(), e.Data.Reveal())
		},
		func(_ context.Context, e *webhook.Event) error { panic(e.Raw.Reveal() + secretA) },
	}
	lines := 0
	for i, accept := range accepts {
		srv := serve(t, webhook.Handler(verifier(t, secretA), accept, webhook.WithLogger(logger), webhook.WithMaxBody(4<<10)))
		broken := []byte(`{"id":"` + canary)
		wrong := []byte(`{"id":{"` + canary + `":1},"type":"` + canary + `"}`)
		other := bytes.Replace(text, []byte(canary), []byte(canary+"2"), 1)
		for _, d := range []struct {
			signature string
			body      []byte
			edit      func(*http.Request)
		}{
			{now(text), text, nil},
			{now(text), text, nil},
			{now(other), other, nil},
			{sign(secretB, "1570788000", text), text, nil},
			{sign(secretA, "1", text), text, nil},
			{"t=1," + now(text), text, nil},
			{"v=" + secretA, text, nil},
			{"", text, nil},
			{now(broken), broken, nil},
			{now(wrong), wrong, nil},
			{now(text), text, func(r *http.Request) { r.URL.Path = "/" + idB }},
			{now(text), text, func(r *http.Request) { r.Method = "PUT" }},
			{now(text), text, func(r *http.Request) { r.Header.Set("Content-Type", canary) }},
			{now(text), bytes.Repeat([]byte(canary), 1<<10), nil},
		} {
			var edits []func(*http.Request)
			if d.edit != nil {
				edits = append(edits, d.edit)
			}
			got := deliver(t, srv.URL, d.signature, bytes.NewReader(d.body), edits...)
			fmt.Fprintln(&answers, got)
			if _, mac, ok := strings.Cut(d.signature, ",s="); ok {
				tokens = append(tokens, mac)
			}
			lines++
		}
		assert.Contains(t, answers.String(), []string{"204", "503", "500"}[i])
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, lines, strings.Count(log.String(), "\n"))
	assert.Contains(t, log.String(), "event="+idA)
	assert.Contains(t, log.String(), "session.expired")
	for _, token := range tokens {
		assert.NotContains(t, log.String(), token)
		assert.NotContains(t, answers.String(), token)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// A client that waits for the answer to Expect: 100-continue is told without
// having to send its body.
func TestRefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	srv := serve(t, webhook.Handler(verifier(t, secretA), new(inbox).accept))
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 413 Request Entity Too Large\r\n", line)
}
