package keywrighttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// soon is how long what happens at once may take on a busy computer.
const soon = 20 * time.Second

// arrival is a delivery as the receiver got it.
type arrival struct {
	method, path, agent, contentType, signature, remote string

	close  bool
	length int64
	body   []byte
}

func (a *arrival) members(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(a.body, &m), "%s", a.body)
	return m
}

// receiver is a webhook that notes what arrives.
type receiver struct {
	url   string
	came  chan struct{} // one for each arrival
	reply func(w http.ResponseWriter, r *http.Request, n int)

	mu  sync.Mutex
	all []arrival
}

// receive starts a receiver. reply answers the nth request; nil: with 200.
func receive(t *testing.T, reply func(w http.ResponseWriter, r *http.Request, n int)) *receiver {
	t.Helper()
	rec := &receiver{came: make(chan struct{}, 100), reply: reply}
	srv := httptest.NewServer(rec)
	t.Cleanup(srv.Close)
	rec.url = srv.URL + "/hooks/"
	return rec
}

func (rec *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what there is of it
	rec.mu.Lock()
	rec.all = append(rec.all, arrival{
		method: r.Method, path: r.URL.Path, agent: r.UserAgent(), contentType: r.Header.Get("Content-Type"),
		signature: r.Header.Get("Ricloud-Signature"), remote: r.RemoteAddr,
		close: r.Close, length: r.ContentLength, body: body,
	})
	n := len(rec.all)
	rec.mu.Unlock()
	rec.came <- struct{}{}
	if rec.reply != nil {
		rec.reply(w, r, n)
	}
}

func (rec *receiver) arrivals() []arrival {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]arrival(nil), rec.all...)
}

// last is the newest arrival.
func (rec *receiver) last() arrival {
	all := rec.arrivals()
	return all[len(all)-1]
}

// answers replies with these statuses, the last one from then on.
func answers(statuses ...int) func(w http.ResponseWriter, r *http.Request, n int) {
	return func(w http.ResponseWriter, _ *http.Request, n int) { w.WriteHeader(statuses[min(n, len(statuses))-1]) }
}

// hooked starts a fake whose first key has a webhook config, and returns the
// config's secret.
func hooked(t *testing.T, url string, opts ...keywrighttest.Option) (f *keywrighttest.Ricloud, secret string) {
	t.Helper()
	// The config test shall not be among the deliveries.
	pass := keywrighttest.WithTestResult(func(map[string]any) string { return "" })
	f = keywrighttest.StartRicloud(t, append([]keywrighttest.Option{pass}, opts...)...)
	secret = hook(t, f, url)
	idle(t, f)
	status, _, _ := call(t, "POST", f.URL()+"/keys/1", "Token "+f.Token(), `{"webhook_config":1}`)
	require.Equal(t, 200, status)
	return f, secret
}

// hook makes a webhook config and returns its secret.
func hook(t *testing.T, f *keywrighttest.Ricloud, url string) (secret string) {
	t.Helper()
	status, _, m := call(t, "POST", f.URL()+"/configs/webhook", "Token "+f.Token(), `{"url":"`+url+`"}`)
	require.Equal(t, 201, status)
	return m["secret"].(string)
}

// idle waits until no task is under way.
func idle(t *testing.T, f *keywrighttest.Ricloud) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, _, m := call(t, "GET", f.URL()+"/tasks?limit=1000", "Token "+f.Token(), "")
		for _, task := range m["data"].([]any) {
			if task.(map[string]any)["date_completed"] == nil {
				return false
			}
		}
		return true
	}, soon, 5*time.Millisecond)
}

func event(t *testing.T, f *keywrighttest.Ricloud, id string) map[string]any {
	t.Helper()
	status, _, m := call(t, "GET", f.URL()+"/events/"+id, "Token "+f.Token(), "")
	require.Equal(t, 200, status)
	return m
}

// settled waits for the outcome of a delivery.
func settled(t *testing.T, f *keywrighttest.Ricloud, id string) (state string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	state, err := f.WaitDelivered(ctx, id)
	require.NoError(t, err)
	return state
}

// signedAt reports whether an arrival was signed with secret at t.
func signedAt(a *arrival, secret string, t time.Time) bool {
	return a.signature == keywrighttest.Sign(secret, t, a.body)
}

func TestFiveAttemptsThenFailed(t *testing.T) {
	t.Parallel()
	rec := receive(t, answers(500, 404, 503, 500, 400))
	f, secret := hooked(t, rec.url, keywrighttest.WithDeliveryDelays(time.Millisecond, 2*time.Millisecond))
	id := f.Emit("task", "succeeded", map[string]any{"resource": "task", "big": int64(9007199254740993)})
	assert.Equal(t, "failed", settled(t, f, id))

	attempts, all := f.Attempts(), rec.arrivals()
	require.Len(t, attempts, 5)
	require.Len(t, all, 5, "and no more")
	remotes := map[string]bool{}
	for i, status := range []int{500, 404, 503, 500, 400} {
		at := attempts[i].At
		assert.Equal(t, keywrighttest.Attempt{Event: id, N: i + 1, Status: status, At: at}, attempts[i])
		a := all[i]
		assert.True(t, signedAt(&a, secret, at))
		assert.Equal(t, "POST", a.method)
		assert.Equal(t, "/hooks/"+id, a.path)
		assert.Equal(t, "ricloud", a.agent)
		assert.Equal(t, "application/json", a.contentType)
		assert.True(t, a.close, "the connection is not for a second request")
		remotes[a.remote] = true
		m := a.members(t)
		assert.Equal(t, names(t, "ricloud/event_webhook_config_test.json"), keys(m))
		assert.Equal(t, id, m["id"])
		assert.Equal(t, "task", m["type"])
		assert.Equal(t, "succeeded", m["action"])
		assert.Equal(t, "pending", m["state"])
		assert.InDelta(t, i, m["retries"], 0)
		assert.Nil(t, m["date_delivered"])
		assert.Contains(t, string(a.body), `"big":9007199254740993`, "numbers keep their digits")
	}
	assert.Len(t, remotes, 5)
	e := event(t, f, id)
	assert.Equal(t, "failed", e["state"])
	assert.InDelta(t, 4, e["retries"], 0)
	assert.Nil(t, e["date_delivered"])
}

func TestDeliveredAtTheThirdAttempt(t *testing.T) {
	t.Parallel()
	elsewhere := receive(t, nil)
	rec := receive(t, func(w http.ResponseWriter, r *http.Request, n int) {
		switch n {
		case 1:
			http.Redirect(w, r, elsewhere.url, http.StatusTemporaryRedirect)
		case 2:
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
	clock := new(keywrighttest.Clock)
	clock.Advance(-48 * time.Hour)
	f, secret := hooked(t, rec.url, keywrighttest.WithDeliveryDelays(0), keywrighttest.WithClock(clock))
	id := f.Emit("session", "expired", nil)
	assert.Equal(t, "delivered", settled(t, f, id))
	assert.Equal(t, "delivered", settled(t, f, id), "as often as one asks")

	attempts := f.Attempts()
	require.Len(t, attempts, 3)
	assert.Equal(t, 307, attempts[0].Status)
	assert.Empty(t, elsewhere.arrivals(), "redirects are not followed")
	assert.Zero(t, attempts[1].Status)
	require.Error(t, attempts[1].Err)
	assert.Equal(t, 202, attempts[2].Status)
	require.NoError(t, attempts[2].Err)
	last := rec.last()
	assert.True(t, signedAt(&last, secret, attempts[2].At))
	assert.WithinDuration(t, clock.Now(), attempts[2].At, time.Minute, "the fake's clock")
	e := event(t, f, id)
	assert.Equal(t, "delivered", e["state"])
	assert.InDelta(t, 2, e["retries"], 0)
	assert.Equal(t, map[string]any{}, e["data"])
	delivered, err := time.Parse(time.RFC3339, e["date_delivered"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, clock.Now(), delivered, time.Minute)
}

func TestDeliverSendsWhatItIsTold(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Header.Get("Want") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	other := receive(t, nil)
	f, secret := hooked(t, rec.url)
	first, second := f.Emit("task", "created", nil), f.Emit("task", "failed", nil)
	settled(t, f, first)
	settled(t, f, second)
	require.Len(t, f.Attempts(), 2)
	original := map[string]string{}
	for _, a := range rec.arrivals() {
		original[strings.TrimPrefix(a.path, "/hooks/")] = string(a.body)
	}
	deliver := func(id string, d keywrighttest.Delivery) arrival {
		t.Helper()
		before := len(rec.arrivals())
		status, err := f.Deliver(id, d)
		require.NoError(t, err)
		assert.Equal(t, 200, status)
		require.Len(t, rec.arrivals(), before+1, "once")
		return rec.last()
	}
	near := func(a *arrival, secret string, body []byte) bool {
		for i := range int(soon/time.Second) + 1 {
			if a.signature == keywrighttest.Sign(secret, time.Now().Add(-time.Duration(i)*time.Second), body) {
				return true
			}
		}
		return false
	}

	for _, id := range []string{second, first, first} { // out of order, and a duplicate
		a := deliver(id, keywrighttest.Delivery{})
		assert.Equal(t, "/hooks/"+id, a.path)
		assert.Equal(t, original[id], string(a.body), "the same to the byte")
		assert.True(t, near(&a, secret, a.body))
	}
	old := time.Unix(1500000000, 0)
	a := deliver(first, keywrighttest.Delivery{At: old})
	assert.True(t, signedAt(&a, secret, old))

	a = deliver(first, keywrighttest.Delivery{Secret: "another", At: old})
	assert.True(t, signedAt(&a, "another", old))

	a = deliver(first, keywrighttest.Delivery{Edit: func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"created"`), []byte(`"invented"`), 1)
	}})
	assert.Equal(t, "invented", a.members(t)["action"])
	assert.True(t, near(&a, secret, a.body), "signed afterwards")

	a = deliver(first, keywrighttest.Delivery{Tamper: func(_ *http.Request, b []byte) []byte {
		return append(b, ' ')
	}})
	assert.Equal(t, original[first]+" ", string(a.body))
	assert.False(t, near(&a, secret, a.body))
	assert.True(t, near(&a, secret, []byte(original[first])), "signed before")

	a = deliver(first, keywrighttest.Delivery{Tamper: func(r *http.Request, _ []byte) []byte {
		r.Header.Del("Ricloud-Signature")
		r.Header.Set("Content-Type", "text/plain")
		r.URL.Path = "/wrong"
		return nil
	}})
	assert.Empty(t, a.signature)
	assert.Equal(t, "text/plain", a.contentType)
	assert.Equal(t, "/wrong", a.path)
	assert.Empty(t, a.body)
	assert.Zero(t, a.length)

	a = deliver(first, keywrighttest.Delivery{Tamper: func(r *http.Request, b []byte) []byte {
		r.ContentLength = -1
		return b
	}})
	assert.EqualValues(t, -1, a.length, "in chunks")
	assert.Equal(t, original[first], string(a.body))

	_, err := f.Deliver(first, keywrighttest.Delivery{Tamper: func(r *http.Request, b []byte) []byte {
		r.ContentLength = int64(len(b)) + 10
		return b
	}})
	require.Error(t, err, "cut off")

	status, err := f.Deliver(first, keywrighttest.Delivery{Tamper: func(r *http.Request, b []byte) []byte {
		r.Header.Set("Want", "trouble")
		return b
	}})
	require.NoError(t, err)
	assert.Equal(t, 418, status)

	_, err = f.Deliver(first, keywrighttest.Delivery{URL: strings.TrimSuffix(other.url, "/") + "?x=1"})
	require.NoError(t, err)
	assert.Equal(t, "/hooks/"+first, other.last().path)

	assert.Len(t, f.Attempts(), 2, "none of these counts")
	for _, id := range []string{first, second} {
		assert.Equal(t, "delivered", event(t, f, id)["state"])
		assert.InDelta(t, 0, event(t, f, id)["retries"], 0)
	}
}

func TestDeliverRefusesWhatItCannotSend(t *testing.T) {
	t.Parallel()
	f := keywrighttest.StartRicloud(t)
	id := f.Emit("task", "created", nil)
	rec := receive(t, nil)
	for name, d := range map[string]keywrighttest.Delivery{
		"no config":    {},
		"no secret":    {URL: rec.url},
		"no URL":       {Secret: "x"},
		"not loopback": {URL: "https://hooks.example.com/", Secret: "x"},
		"no such URL":  {URL: "http://127.0.0.1:1\x00/", Secret: "x"},
		"led astray": {URL: rec.url, Secret: "x", Tamper: func(r *http.Request, b []byte) []byte {
			r.URL.Host = "hooks.example.com"
			return b
		}},
	} {
		_, err := f.Deliver(id, d)
		require.Error(t, err, name)
	}
	_, err := f.Deliver("none", keywrighttest.Delivery{URL: rec.url, Secret: "x"})
	require.Error(t, err)
	assert.Empty(t, rec.arrivals())
	status, err := f.Deliver(id, keywrighttest.Delivery{URL: rec.url, Secret: "x"})
	require.NoError(t, err, "without a config")
	assert.Equal(t, 200, status)
	assert.Panics(t, func() { f.Emit("task", "created", map[string]any{"x": make(chan int)}) })
}

func TestCloseEndsDeliveries(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]func(w http.ResponseWriter, r *http.Request, n int){
		"between attempts": answers(500),
		"in an attempt": func(_ http.ResponseWriter, r *http.Request, _ int) {
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := receive(t, reply)
			f, _ := hooked(t, rec.url, keywrighttest.WithDeliveryDelays(time.Hour))
			id := f.Emit("task", "created", nil)
			if name == "between attempts" {
				require.Eventually(t, func() bool { return len(f.Attempts()) == 1 }, soon, time.Millisecond)
			} else {
				<-rec.came
			}
			waited := make(chan error, 1)
			go func() {
				_, err := f.WaitDelivered(context.Background(), id)
				waited <- err
			}()
			begun := time.Now()
			f.Close()
			assert.Less(t, time.Since(begun), 5*time.Second, "neither the hour nor the ten seconds")
			require.Error(t, <-waited)
			require.Len(t, f.Attempts(), 1)

			state, err := f.WaitDelivered(t.Context(), id)
			require.Error(t, err)
			assert.Equal(t, "pending", state)
			late := f.Emit("task", "created", nil)
			state, err = f.WaitDelivered(t.Context(), late)
			require.Error(t, err, "nothing is begun any more")
			assert.Equal(t, "pending", state)
			_, err = f.Deliver(id, keywrighttest.Delivery{})
			require.ErrorIs(t, err, context.Canceled)
			f.Close()
			assert.Len(t, rec.arrivals(), 1)
		})
	}
}

func TestWhichWebhookIsInEffect(t *testing.T) {
	t.Parallel()
	byKey, byDefault := receive(t, nil), receive(t, nil)
	f := keywrighttest.StartRicloud(t, keywrighttest.WithDeliveryDelays(0))
	auth := "Token " + f.Token()
	post := func(path, body string) {
		t.Helper()
		status, _, _ := call(t, "POST", f.URL()+path, auth, body)
		require.Equal(t, 200, status)
	}
	undelivered := func(id string) {
		t.Helper()
		state, err := f.WaitDelivered(t.Context(), id)
		require.Error(t, err)
		assert.Equal(t, "pending", state)
		assert.Equal(t, "pending", event(t, f, id)["state"])
	}
	hook(t, f, byKey.url)
	hook(t, f, byDefault.url)
	hook(t, f, "https://hooks.example.com/")
	idle(t, f)
	require.Len(t, byKey.arrivals(), 1, "the config test's event; the task's went nowhere")
	require.Len(t, byDefault.arrivals(), 1)
	for _, a := range f.Attempts() {
		assert.Equal(t, 1, a.N)
		assert.Equal(t, "test", event(t, f, a.Event)["action"])
		assert.Equal(t, "delivered", event(t, f, a.Event)["state"])
		assert.Equal(t, "delivered", settled(t, f, a.Event))
	}
	undelivered(f.Emit("task", "created", nil))

	post("/organisation", `{"webhook_config_default":2}`)
	settled(t, f, f.Emit("task", "created", nil))
	assert.Len(t, byDefault.arrivals(), 2)
	post("/keys/1", `{"webhook_config":1}`)
	settled(t, f, f.Emit("task", "created", nil))
	assert.Len(t, byKey.arrivals(), 2, "the key's comes first")
	assert.Len(t, byDefault.arrivals(), 2)
	post("/keys/1", `{"webhook_config":3}`)
	undelivered(f.Emit("task", "created", nil)) // not on loopback
	status, _, _ := call(t, "DELETE", f.URL()+"/configs/webhook/3", auth, "")
	require.Equal(t, 200, status)
	settled(t, f, f.Emit("task", "created", nil))
	assert.Len(t, byDefault.arrivals(), 3, "the default again")
	f.RemoveKey(1)
	settled(t, f, f.Emit("task", "created", nil))
	assert.Len(t, byDefault.arrivals(), 4, "without a key")

	_, err := f.WaitDelivered(t.Context(), "none")
	require.Error(t, err)
}

func TestEventsOfTasksAreDelivered(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	f, secret := hooked(t, rec.url)
	auth := "Token " + f.Token()
	status, _, _ := call(t, "POST", f.URL()+"/configs/webhook/1/test", auth, "")
	require.Equal(t, 201, status)
	for range 2 {
		<-rec.came
	}
	var actions []any
	for _, a := range rec.arrivals() {
		m := a.members(t)
		assert.Equal(t, "task", m["type"])
		assert.Equal(t, "webhook_config.test", m["data"].(map[string]any)["type"])
		assert.Equal(t, "delivered", settled(t, f, m["id"].(string)))
		actions = append(actions, m["action"])
	}
	assert.ElementsMatch(t, []any{"created", "succeeded"}, actions)
	attempts := f.Attempts()
	require.Len(t, attempts, 2)
	for _, a := range rec.arrivals() {
		for _, attempt := range attempts {
			if strings.HasSuffix(a.path, attempt.Event) {
				assert.True(t, signedAt(&a, secret, attempt.At))
				assert.Equal(t, 200, attempt.Status)
			}
		}
	}
}

func TestConfigTestIsSentOnce(t *testing.T) {
	t.Parallel()
	rec := receive(t, answers(500))
	f := keywrighttest.StartRicloud(t, keywrighttest.WithDeliveryDelays(0))
	hook(t, f, rec.url)
	idle(t, f)
	require.Len(t, rec.arrivals(), 1)
	attempts := f.Attempts()
	require.Len(t, attempts, 1)
	assert.Equal(t, 500, attempts[0].Status)
	assert.Equal(t, "failed", settled(t, f, attempts[0].Event))
	_, _, m := call(t, "GET", f.URL()+"/configs/webhook/1", "Token "+f.Token(), "")
	assert.Equal(t, "invalid", m["state"])
}

func TestWaitDeliveredEndsWithItsContext(t *testing.T) {
	t.Parallel()
	rec := receive(t, answers(500))
	f, _ := hooked(t, rec.url, keywrighttest.WithDeliveryDelays()) // the first wait is a second
	id := f.Emit("task", "created", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	state, err := f.WaitDelivered(ctx, id)
	require.ErrorIs(t, err, enough)
	assert.Equal(t, "pending", state)
}

func TestDeliveriesAtTheSameTime(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n%3 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	f, secret := hooked(t, rec.url, keywrighttest.WithDeliveryDelays(0))
	data := map[string]any{"nested": map[string]any{"n": 0}}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 8 {
		id := f.Emit("poll", fmt.Sprint("number", i), data)
		data["nested"].(map[string]any)["n"] = i + 1 // the event keeps what it was given
		wg.Go(func() {
			_, err := f.Deliver(id, keywrighttest.Delivery{Secret: secret, At: time.Unix(1, 0)})
			assert.NoError(t, err)
		})
		wg.Go(func() {
			_, err := f.WaitDelivered(t.Context(), id)
			assert.NoError(t, err)
			assert.NotEmpty(t, f.Attempts())
		})
		kept := event(t, f, id)["data"].(map[string]any)["nested"]
		assert.Equal(t, map[string]any{"n": float64(i)}, kept)
	}
}
