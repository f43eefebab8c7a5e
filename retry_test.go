package keywright_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

// step is one answer of a scripted provider, or its failure.
type step struct {
	status int
	after  string // Retry-After
	err    error
	body   string
}

// provider answers from a script, the last step for ever, and notes when it
// was asked.
type provider struct {
	mu    sync.Mutex
	steps []step
	times []time.Time
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.steps[min(len(p.times), len(p.steps)-1)]
	p.times = append(p.times, time.Now())
	if s.err != nil {
		return nil, s.err
	}
	h := http.Header{}
	if s.after != "" {
		h.Set("Retry-After", s.after)
	}
	if s.body == "" {
		s.body = `{"id":1,"token":"a-new-token-0123456789"}`
	}
	return &http.Response{StatusCode: s.status, Header: h, Body: readCloser(s.body), Request: r}, nil
}

// waits are the times between attempts.
func (p *provider) waits() []time.Duration {
	var out []time.Duration
	for i := 1; i < len(p.times); i++ {
		out = append(out, p.times[i].Sub(p.times[i-1]))
	}
	return out
}

// defaults is a client with the default policy.
func defaults(t *testing.T, p *provider, opts ...keywright.Option) *keywright.Ricloud {
	t.Helper()
	rc, err := keywright.NewRicloud(append([]keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithBaseURL("https://ricloud.example"), keywright.WithToken("some-token-0123456789"),
		keywright.WithHTTPClient(&http.Client{Transport: p}),
	}, opts...)...)
	require.NoError(t, err)
	return rc
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		steps    []step
		lo, hi   []time.Duration // bounds of each wait
		policy   keywright.RetryPolicy
		attempts int
		ok       bool
	}{
		"transient":           {steps: []step{{status: 503}}, lo: []time.Duration{50 * ms, 50 * ms}, hi: []time.Duration{100 * ms, 200 * ms}, attempts: 3},
		"throttled":           {steps: []step{{status: 429}}, lo: []time.Duration{500 * ms, 500 * ms}, hi: []time.Duration{time.Second, 2 * time.Second}, attempts: 3},
		"too early":           {steps: []step{{status: 425}, {status: 200}}, lo: []time.Duration{500 * ms}, hi: []time.Duration{time.Second}, attempts: 2, ok: true},
		"misdirected":         {steps: []step{{status: 421}, {status: 200}}, lo: []time.Duration{500 * ms}, hi: []time.Duration{time.Second}, attempts: 2, ok: true},
		"request time-out":    {steps: []step{{status: 408}, {status: 200}}, lo: []time.Duration{50 * ms}, hi: []time.Duration{100 * ms}, attempts: 2, ok: true},
		"seconds":             {steps: []step{{status: 429, after: "7"}, {status: 200}}, lo: []time.Duration{7 * time.Second}, hi: []time.Duration{7 * time.Second}, attempts: 2, ok: true},
		"seconds on 503":      {steps: []step{{status: 503, after: "60"}, {status: 200}}, lo: []time.Duration{time.Minute}, hi: []time.Duration{time.Minute}, attempts: 2, ok: true},
		"zero seconds":        {steps: []step{{status: 503, after: "0"}, {status: 200}}, lo: []time.Duration{50 * ms}, hi: []time.Duration{100 * ms}, attempts: 2, ok: true},
		"date":                {steps: []step{{status: 429, after: "DATE+30"}, {status: 200}}, lo: []time.Duration{29 * time.Second}, hi: []time.Duration{30 * time.Second}, attempts: 2, ok: true},
		"past date":           {steps: []step{{status: 503, after: "DATE-30"}, {status: 200}}, lo: []time.Duration{50 * ms}, hi: []time.Duration{100 * ms}, attempts: 2, ok: true},
		"date beyond the cap": {steps: []step{{status: 429, after: "DATE+90"}}, attempts: 1},
		"beyond the cap":      {steps: []step{{status: 429, after: "61"}}, attempts: 1},
		"huge":                {steps: []step{{status: 429, after: "9223372036"}}, attempts: 1},
		"overflowing":         {steps: []step{{status: 503, after: "9223372037"}, {status: 200}}, lo: []time.Duration{50 * ms}, hi: []time.Duration{100 * ms}, attempts: 2, ok: true},
		"negative":            {steps: []step{{status: 503, after: "-5"}, {status: 200}}, lo: []time.Duration{50 * ms}, hi: []time.Duration{100 * ms}, attempts: 2, ok: true},
		"garbled":             {steps: []step{{status: 503, after: "soon"}, {status: 200}}, lo: []time.Duration{50 * ms}, hi: []time.Duration{100 * ms}, attempts: 2, ok: true},
		"wide cap":            {steps: []step{{status: 429, after: "300"}, {status: 200}}, policy: keywright.RetryPolicy{MaxHint: 10 * time.Minute}, lo: []time.Duration{5 * time.Minute}, hi: []time.Duration{5 * time.Minute}, attempts: 2, ok: true},
		"no retries":          {steps: []step{{status: 503}}, policy: keywright.RetryPolicy{MaxAttempts: 1}, attempts: 1},
		"capped windows":      {steps: []step{{status: 503}}, policy: keywright.RetryPolicy{MaxAttempts: 6, BaseDelay: time.Second, MaxDelay: 2 * time.Second}, lo: []time.Duration{500 * ms, 500 * ms, 500 * ms, 500 * ms, 500 * ms}, hi: []time.Duration{time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second}, attempts: 6},
		"tiny cap":            {steps: []step{{status: 503}, {status: 200}}, policy: keywright.RetryPolicy{MaxDelay: ms}, lo: []time.Duration{ms}, hi: []time.Duration{ms}, attempts: 2, ok: true},
		"501":                 {steps: []step{{status: 501}}, attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &provider{}
				for _, s := range tc.steps {
					var offset int
					if n, _ := fmt.Sscanf(s.after, "DATE%d", &offset); n == 1 {
						s.after = time.Now().Add(time.Duration(offset) * time.Second).UTC().Format(http.TimeFormat)
					}
					p.steps = append(p.steps, s)
				}
				rc := defaults(t, p, keywright.WithRetry(tc.policy))
				start := time.Now()
				_, err := rc.Key.Current(t.Context())
				assert.Equal(t, tc.ok, err == nil, "%v", err)
				require.Len(t, p.times, tc.attempts)
				for i, w := range p.waits() {
					assert.GreaterOrEqual(t, w, tc.lo[i])
					assert.LessOrEqual(t, w, tc.hi[i])
				}
				if tc.attempts == 1 {
					assert.Zero(t, time.Since(start), "returned at once")
				}
				var api *keywright.APIError
				if errors.As(err, &api) {
					assert.Equal(t, tc.attempts, api.Attempts)
				}
			})
		})
	}
}

func TestBackOffIsJittered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 20 {
			p := &provider{steps: []step{{status: 503}, {status: 200}}}
			_, err := defaults(t, p).Key.Current(t.Context())
			require.NoError(t, err)
			seen[p.waits()[0]] = true
		}
		assert.Greater(t, len(seen), 10)
	})
}

func TestBackOffKeepsToTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{steps: []step{{status: 429, after: "30"}}}
		for name, call := range map[string]func(*keywright.Ricloud) error{
			"context": func(rc *keywright.Ricloud) error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				_, err := rc.Key.Current(ctx)
				return err
			},
			"call time-out": func(rc *keywright.Ricloud) error {
				_, err := rc.Key.Current(t.Context(), keywright.WithCallTimeout(20*time.Second))
				return err
			},
		} {
			start := time.Now()
			err := call(defaults(t, p))
			require.ErrorIs(t, err, keywright.ErrRateLimited, name)
			assert.Zero(t, time.Since(start), "no use in waiting beyond the deadline")
			var api *keywright.APIError
			require.ErrorAs(t, err, &api)
			assert.Equal(t, 30*time.Second, api.RetryAfter)
		}
	})
}

func TestCancelInBackOffKeepsTheEvidence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{steps: []step{{status: 503, after: "30", body: `{"error":"maintenance","message":"back soon"}`}}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(7*time.Second, cancel)
		start := time.Now()
		_, err := defaults(t, p).Key.Current(ctx)
		assert.Equal(t, 7*time.Second, time.Since(start))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, keywright.ErrServer)
		var api *keywright.APIError
		require.ErrorAs(t, err, &api)
		assert.Equal(t, "maintenance", api.Code)
		assert.NotErrorIs(t, err, keywright.ErrOutcomeUnknown)
	})
}

func TestAttemptTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{Transport: silent, Timeout: 3 * time.Second}))
		start := time.Now()
		_, err := rc.Key.Current(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var transport *keywright.TransportError
		require.ErrorAs(t, err, &transport)
		assert.Equal(t, 3, transport.Attempts)
		assert.InDelta(t, 9, time.Since(start).Seconds(), 0.1, "the http.Client's own time-out bounds each attempt")
		start = time.Now()
		_, err = rc.StorageConfig.TestWithID(t.Context(), 1, keywright.WithAwait(5*time.Second))
		require.ErrorIs(t, err, keywright.ErrOutcomeUnknown, "a transport without httptrace proves nothing")
		assert.Equal(t, 8*time.Second, time.Since(start), "a held answer gets its time on top")
	})
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{steps: []step{{status: 503}}}
		rc := defaults(t, p, quick())
		calls := 0
		for len(p.times) == 3*calls { // while calls have all their attempts
			_, err := rc.Key.Current(t.Context())
			require.ErrorIs(t, err, keywright.ErrServer)
			calls++
		}
		assert.Equal(t, 18, calls, "500 tokens at 14 a retry: 35 retries in 18 calls")
		before := len(p.times)
		_, err := rc.Key.Current(t.Context())
		require.Error(t, err)
		assert.Equal(t, before+1, len(p.times), "the budget is spent: one attempt")
		p.steps = []step{{status: 429}}
		_, err = rc.Key.Current(t.Context())
		require.ErrorIs(t, err, keywright.ErrRateLimited)
		p.steps = []step{{status: 200}}
		for range 40 {
			_, err := rc.Key.Current(t.Context())
			require.NoError(t, err)
		}
		p.steps = []step{{status: 503}}
		before = len(p.times)
		_, err = rc.Key.Current(t.Context())
		require.Error(t, err)
		assert.Equal(t, before+3, len(p.times), "successes give it back")
	})
}

func TestPermanentFailuresAreNotRetried(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"unsupported scheme": errors.New("unsupported protocol scheme \"gopher\""),
		"proxy auth":         errors.New("Proxy Authentication Required"),
		"NXDOMAIN":           &net.DNSError{IsNotFound: true},
		"tls alert":          errors.New("remote error: tls: handshake failure"),
	} {
		p := &provider{steps: []step{{err: err}}}
		_, got := defaults(t, p, quick()).Key.Current(t.Context())
		require.ErrorAs(t, got, new(*keywright.TransportError), name)
		assert.Len(t, p.times, 1, name)
	}
}

func TestMutationsAreSentOnceThroughAnyTransport(t *testing.T) {
	t.Parallel()
	// A transport that does not honour httptrace may have sent anything.
	for name, err := range map[string]error{"EOF": errors.New("EOF"), "dial": &net.OpError{Op: "dial", Err: errors.New("refused")}} {
		p := &provider{steps: []step{{err: err}}}
		rc := defaults(t, p, quick())
		_, got := rc.Key.Create(t.Context(), keywright.KeyCreateParams{})
		require.ErrorIs(t, got, keywright.ErrOutcomeUnknown, name)
		assert.Len(t, p.times, 1)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "1.5", "9223372037", "Fri, 31 Dec 9999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT", "soon"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, after string) {
		synctest.Test(t, func(t *testing.T) {
			p := &provider{steps: []step{{status: 429, after: after}, {status: 200}}}
			start := time.Now()
			_, err := defaults(t, p).Key.Current(t.Context())
			took := time.Since(start)
			var api *keywright.APIError
			switch {
			case err == nil && (took < 500*time.Millisecond || took > time.Minute):
				t.Fatalf("waited %v", took)
			case err != nil && (took != 0 || !errors.As(err, &api) || api.RetryAfter <= time.Minute):
				t.Fatalf("gave up after %v: %v", took, err)
			}
		})
	})
}
