package keywright_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// The fault matrix: every cell about the transport, paging and read-backs of
// testdata/fault-matrix.tsv is run here. A scenario sets a fault up for one
// operation, runs it, and checks the invariants at the fake provider.

// attemptTimeout is short where a fault is a silence. Every test client settles
// in twice that time.
const attemptTimeout = 1500 * time.Millisecond

func brief() keywright.Option { return keywright.WithTimeout(attemptTimeout) }

// soak reports whether the long runs were asked for.
func soak() bool { return os.Getenv("KEYWRIGHT_SOAK") != "" }

// world is one operation against one faulty provider.
type world struct {
	*testing.T
	op   string // column suffix: read, create, update, rotate, rotate-own, delete
	fake *keywrighttest.Ricloud
	rc   *keywright.Ricloud
	sent atomic.Int64 // attempts, counted below the retry loop
	old  keywright.Secret
	key  *keywright.Key // of the rotations
	hook keywright.WebhookConfigID
}

// wireOp is the operation's name at the provider.
func (w *world) wireOp() string {
	return map[string]string{
		"read": "key.retrieve", "create": "key.create", "update": "key.update",
		"rotate": "key.rotate", "rotate-own": "key.rotate", "delete": "webhook_config.delete",
	}[w.op]
}

func (w *world) mutates() bool { return w.op != "read" }

// newWorld prepares a provider with two keys and a webhook config, and a
// client of it. url stands in for the provider's own, if it is not empty.
func newWorld(t *testing.T, op, url string, opts ...keywright.Option) *world {
	t.Helper()
	w := &world{T: t, op: op, fake: keywrighttest.StartRicloud(t)}
	w.fake.AddKeys(1)
	setup := ricloud(t, w.fake)
	ctx := t.Context()
	hook, err := setup.WebhookConfig.Create(ctx, keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/in/"})
	require.NoError(t, err)
	w.hook = hook.ID
	id := keywright.KeyID(2)
	if op == "rotate-own" {
		id = 1
	}
	w.key, err = setup.Key.Retrieve(ctx, id)
	require.NoError(t, err)
	w.old = w.key.Token
	w.fake.Forget()
	if url == "" {
		url = w.fake.URL()
	}
	w.rc = ricloudAt(t, url, w.fake.Token(), append([]keywright.Option{counting(&w.sent)}, opts...)...)
	return w
}

// do runs the operation.
func (w *world) do(ctx context.Context, opts ...keywright.CallOption) error {
	switch w.op {
	case "read":
		_, err := w.rc.Key.Retrieve(ctx, 2, opts...)
		return err
	case "create":
		_, err := w.rc.Key.Create(ctx, keywright.KeyCreateParams{WebhookConfig: keywright.Set(w.hook)}, opts...)
		return err
	case "update":
		_, err := w.rc.Key.UpdateWithID(ctx, 2, keywright.KeyUpdateParams{WebhookConfig: keywright.Set(w.hook)}, opts...)
		return err
	case "rotate", "rotate-own":
		return w.rc.Key.Rotate(ctx, w.key, keywright.KeyRotateParams{}, opts...)
	case "delete":
		return w.rc.WebhookConfig.DeleteWithID(ctx, w.hook, opts...)
	}
	panic(w.op)
}

// outcome asserts an error's outcome, and that its text is fit to be shown.
func (w *world) outcome(err error, want keywright.Outcome) {
	w.Helper()
	require.Error(w, err)
	assert.Equal(w, want.String(), keywright.OutcomeOf(err).String(), "%v", err)
	unknown := want == keywright.Ambiguous || want == keywright.ResultLost
	assert.Equal(w, unknown, errors.Is(err, keywright.ErrOutcomeUnknown))
	w.clean(err.Error())
}

// clean asserts I4 of a text.
func (w *world) clean(text string) {
	w.Helper()
	for id := int64(1); id <= 3; id++ {
		for _, token := range w.fake.AcceptedTokens(id) {
			assert.NotContains(w, text, token)
		}
	}
	assert.NotContains(w, text, w.old.Reveal())
	assert.NotContains(w, text, "http://")
	assert.NotContains(w, text, "<html")
	assert.NotContains(w, text, "\n")
}

// applied asserts I2: how often the provider changed something.
func (w *world) applied(n int) {
	w.Helper()
	assert.Equal(w, n, w.fake.Applied(w.wireOp()), "applied")
}

// wire asserts I1: how often the operation reached the provider.
func (w *world) wire(n int) {
	w.Helper()
	assert.Equal(w, n, w.fake.Count(w.wireOp()), "on the wire")
}

// attempts asserts how often the operation itself was tried, I9 included.
func (w *world) attempts(n int64) {
	w.Helper()
	assert.Equal(w, n, w.sent.Load(), "attempts")
}

// lockedOut asserts I5: what the caller holds is accepted.
func (w *world) lockedOut() {
	w.Helper()
	assert.Contains(w, w.fake.AcceptedTokens(int64(w.key.ID)), w.key.Token.Reveal())
}

// recovered asserts what Recover finds.
func (w *world) recovered(err error, want keywright.Outcome) *keywright.Recovery {
	w.Helper()
	var lost recoverer
	require.ErrorAs(w, err, &lost)
	found, rerr := lost.Recover(w.Context())
	require.NoError(w, rerr)
	assert.Equal(w, want.String(), found.Outcome.String())
	if want == keywright.Applied && strings.HasPrefix(w.op, "rotate") {
		key, ok := found.Resource().(*keywright.Key)
		require.True(w, ok)
		assert.Equal(w, w.fake.TokenOf(int64(w.key.ID)), key.Token.Reveal())
		assert.False(w, key.Token.Equal(w.old))
	}
	return found
}

// neverReached checks a fault that lies before the provider: transient ones
// are tried three times, permanent ones once.
func (w *world) neverReached(err error, permanent bool) {
	w.Helper()
	want := keywright.NotSent
	require.Error(w, err)
	if !w.mutates() {
		assert.NotErrorIs(w, err, keywright.ErrOutcomeUnknown)
		w.clean(err.Error())
	} else {
		w.outcome(err, want)
	}
	var transport *keywright.TransportError
	require.ErrorAs(w, err, &transport)
	n := 3
	if permanent {
		n = 1
	}
	assert.Equal(w, n, transport.Attempts)
	w.attempts(int64(n))
	assert.Empty(w, w.fake.Requests())
	w.lockedOut()
}

// lostAfterApply checks a fault that hides an applied change.
func (w *world) lostAfterApply(err error, outcome keywright.Outcome) {
	w.Helper()
	switch w.op {
	case "read":
		require.NoError(w, err) // retried
		w.wire(2)
		return
	case "delete":
		require.NoError(w, err) // looked into
		w.wire(1)
	default:
		w.outcome(err, outcome)
		w.wire(1)
		w.attempts(1)
		w.recovered(err, keywright.Applied)
	}
	w.applied(1)
	w.lockedOut()
}

// dial is a transport whose every dial fails with err.
func dial(err error) keywright.Option {
	return keywright.WithHTTPClient(&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if err == nil {
				<-ctx.Done()
				err := ctx.Err()
				return nil, &net.OpError{Op: "dial", Err: err}
			}
			return nil, &net.OpError{Op: "dial", Err: err}
		},
	}})
}

// edit is a fault that changes the body of an applied answer.
func edit(op string, f func([]byte) []byte) keywrighttest.Fault {
	return keywrighttest.Fault{Op: op, When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Edit: f}
}

// members is an edit of one object.
func members(change func(map[string]any)) func([]byte) []byte {
	return func(b []byte) []byte {
		m := map[string]any{}
		_ = json.Unmarshal(b, &m)
		change(m)
		out, _ := json.Marshal(m)
		return out
	}
}

var quiet = log.New(io.Discard, "", 0)

// scenarios are the faults by the number of their cell.
var scenarios = map[string]func(t *testing.T, op string){
	"F01": func(t *testing.T, op string) {
		w := newWorld(t, op, "", dial(&net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true}))
		w.neverReached(w.do(t.Context()), false)
	},
	"F02": func(t *testing.T, op string) {
		w := newWorld(t, op, "", dial(&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}))
		w.neverReached(w.do(t.Context()), true)
	},
	"F03": func(t *testing.T, op string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		w := newWorld(t, op, "http://"+l.Addr().String())
		w.neverReached(w.do(t.Context()), false)
	},
	"F04": func(t *testing.T, op string) {
		w := newWorld(t, op, "", dial(nil), keywright.WithTimeout(50*time.Millisecond))
		w.neverReached(w.do(t.Context()), false)
	},
	"F05": func(t *testing.T, op string) {
		l := rawListener(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		w := newWorld(t, op, "https://"+l, keywright.WithTimeout(100*time.Millisecond))
		w.neverReached(w.do(t.Context()), false)
	},
	"F06": func(t *testing.T, op string) {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
		srv.Config.ErrorLog = quiet
		srv.StartTLS()
		defer srv.Close()
		for name, tc := range map[string]struct {
			url  string
			opts []keywright.Option
		}{
			"untrusted":  {srv.URL, nil},
			"wrong name": {strings.Replace(srv.URL, "127.0.0.1", "localhost", 1), []keywright.Option{trusting(srv, nil)}},
			"expired": {srv.URL, []keywright.Option{trusting(srv, func(c *tls.Config) {
				c.Time = func() time.Time { return time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC) }
			})}},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, op, tc.url, tc.opts...)
				w.neverReached(w.do(t.Context()), true)
			})
		}
	},
	"F07": func(t *testing.T, op string) {
		w := newWorld(t, op, "")
		w.rc = ricloudAt(t, strings.Replace(w.fake.URL(), "http:", "https:", 1), w.fake.Token(), counting(&w.sent))
		w.neverReached(w.do(t.Context()), true)
	},
	"F08": func(t *testing.T, op string) {
		for _, status := range []int{407, 502} {
			t.Run(fmt.Sprint(status), func(t *testing.T) {
				proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					assert.Equal(t, http.MethodConnect, r.Method)
					assert.Empty(t, r.Header.Get("Authorization"))
					rw.WriteHeader(status)
				}))
				defer proxy.Close()
				u, err := url.Parse(proxy.URL)
				require.NoError(t, err)
				w := newWorld(t, op, "https://ricloud.example", keywright.WithHTTPClient(&http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u)}}))
				w.neverReached(w.do(t.Context()), status == 407)
			})
		}
	},
	"F09": func(t *testing.T, op string) {
		// A server that closes every connection right after its answer, without
		// saying so: on a pooled connection the next request meets the close.
		n := 100
		if soak() {
			n = 3000
		}
		url := rawListener(t, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			body := string(keywrighttest.Fixture("ricloud/key_rotated.json"))
			body = strings.Replace(body, `"id": 1`, `"id": `+map[bool]string{true: "1", false: "2"}[op == "rotate-own"], 1)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		})
		w := newWorld(t, op, "http://"+url)
		for range n {
			key := *w.key
			w.key = &key
			err := w.do(t.Context())
			require.NoError(t, err)
			w.key.Token = w.old
		}
		if w.mutates() {
			w.attempts(int64(n))
		}
	},
	"F10": func(t *testing.T, op string) {
		w := newWorld(t, op, "")
		target := w.fake.URL()[len("http://"):]
		var first atomic.Bool
		first.Store(true)
		url := rawListener(t, func(c net.Conn) {
			if first.Swap(false) {
				return // closed before anything is read
			}
			pipe(c, target)
		})
		w.rc = ricloudAt(t, "http://"+url, w.fake.Token(), counting(&w.sent))
		err := w.do(t.Context())
		switch op {
		case "read":
			require.NoError(t, err)
		case "delete":
			require.NoError(t, err)
			w.applied(1)
		default:
			w.outcome(err, keywright.Ambiguous)
			w.attempts(1)
			w.applied(0)
			w.recovered(err, keywright.NotApplied)
			w.wire(0)
		}
		w.lockedOut()
	},
	"F11": func(t *testing.T, op string) { appliedThen(t, op, keywrighttest.Drop, keywright.Ambiguous) },
	"F12": func(t *testing.T, op string) { appliedThen(t, op, keywrighttest.Reset, keywright.Ambiguous) },
	"F13": func(t *testing.T, op string) { appliedThen(t, op, keywrighttest.Stall, keywright.Ambiguous) },
	"F14": func(t *testing.T, op string) {
		w := newWorld(t, op, "", brief())
		w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), When: keywrighttest.LateApply, Do: keywrighttest.Stall, Delay: attemptTimeout + 900*time.Millisecond})
		err := w.do(t.Context())
		switch op {
		case "read":
			require.NoError(t, err)
		case "delete":
			require.NoError(t, err)
			w.applied(1)
		default:
			w.outcome(err, keywright.Ambiguous)
			w.applied(0) // the first look will not see it
			w.recovered(err, keywright.Applied)
			w.applied(1)
			w.wire(1)
		}
		w.lockedOut()
	},
	"F15": func(t *testing.T, op string) { appliedThen(t, op, keywrighttest.Cut, keywright.ResultLost) },
	"F16": func(t *testing.T, op string) { appliedThen(t, op, keywrighttest.Drip, keywright.ResultLost) },
	"F17": func(t *testing.T, op string) {
		for name, body := range map[string]string{
			"html": "<html><body>" + "Sign in</body></html>", "cut JSON": `{"id": 2, "token": "abc`, "empty": "", "text": "OK", "array": "[]", "null": "null",
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, op, "")
				f := edit(w.wireOp(), func([]byte) []byte { return []byte(body) })
				f.Header = http.Header{"Content-Type": {"text/html"}}
				w.fake.Inject(f)
				w.unreadable(w.do(t.Context()))
			})
		}
	},
	"F18": func(t *testing.T, op string) {
		for name, change := range map[string]func([]byte) []byte{
			"{}":         func([]byte) []byte { return []byte("{}") },
			"null":       members(func(m map[string]any) { m["token"] = nil }),
			"absent":     members(func(m map[string]any) { delete(m, "token") }),
			"empty":      members(func(m map[string]any) { m["token"] = "" }),
			"not UTF-8":  func(b []byte) []byte { return bytes.Replace(b, []byte(`"token":"`), []byte("\"token\":\"\xff"), 1) },
			"surrogate":  func(b []byte) []byte { return bytes.Replace(b, []byte(`"token":"`), []byte(`"token":"\ud800`), 1) },
			"NUL":        func(b []byte) []byte { return bytes.Replace(b, []byte(`"token":"`), []byte(`"token":"\u0000`), 1) },
			"number":     members(func(m map[string]any) { m["token"] = 123 }),
			"mask":       members(func(m map[string]any) { m["token"] = "abcd…(64 chars)" }),
			"other case": func(b []byte) []byte { return bytes.Replace(b, []byte(`"token"`), []byte(`"Token"`), 1) },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, op, "")
				w.fake.Inject(edit(w.wireOp(), change))
				err := w.do(t.Context())
				if absent := map[string]bool{"null": true, "absent": true, "mask": true, "other case": true}[name]; absent && (op == "update" || op == "read") {
					require.NoError(t, err) // the provider may withhold a token from a read
					return
				}
				w.unreadable(err)
			})
		}
	},
	"F19": func(t *testing.T, op string) {
		w := newWorld(t, op, "")
		w.fake.Inject(edit(w.wireOp(), members(func(m map[string]any) { m["token"] = w.old.Reveal() })))
		err := w.do(t.Context())
		if !strings.HasPrefix(op, "rotate") {
			require.NoError(t, err)
			return
		}
		w.outcome(err, keywright.ResultLost)
		require.ErrorIs(t, err, keywright.ErrTokenUnchanged)
		assert.True(t, w.key.Token.Equal(w.old), "the old token is kept")
		w.lockedOut()
	},
	"F20": func(t *testing.T, op string) {
		w := newWorld(t, op, "")
		w.fake.Inject(edit(w.wireOp(), members(func(m map[string]any) { m["id"] = 77 })))
		err := w.do(t.Context())
		switch op {
		case "create", "delete":
			require.NoError(t, err)
		case "read":
			w.outcome(err, keywright.Rejected)
			require.ErrorIs(t, err, keywright.ErrWrongResource)
		default:
			w.outcome(err, keywright.ResultLost)
			require.ErrorIs(t, err, keywright.ErrWrongResource)
			var bad *keywright.DecodeError
			require.ErrorAs(t, err, &bad)
			assert.Equal(t, w.fake.TokenOf(int64(w.key.ID)), bad.Orphan.Reveal(), "the secret is kept")
			w.recovered(err, keywright.Applied)
		}
	},
	"F21": func(t *testing.T, op string) {
		bomb := bomb()
		w := newWorld(t, op, "", keywright.WithTimeout(time.Minute))
		f := edit(w.wireOp(), func([]byte) []byte { return bomb })
		f.Header = http.Header{"Content-Encoding": {"gzip"}}
		w.fake.Inject(f)
		err := w.do(t.Context())
		if op == "delete" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, keywright.ErrTooLarge)
		w.wire(1)
		if op == "read" {
			w.outcome(err, keywright.Rejected)
			return
		}
		w.outcome(err, keywright.ResultLost)
		w.recovered(err, keywright.Applied)
	},
	"F22": func(t *testing.T, op string) {
		var reached atomic.Int64
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
		defer other.Close()
		w := newWorld(t, op, "")
		for _, status := range []int{301, 302, 303, 307, 308} {
			for name, target := range map[string]string{
				"same path with slash": "/keys/", "same origin": w.fake.URL() + "/elsewhere",
				"other origin": other.URL + "/?t=1", "in clear": "http://ricloud.example/",
			} {
				w.fake.Forget()
				w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), Status: status, Header: http.Header{"Location": {target}}})
				err := w.do(t.Context())
				w.outcome(err, keywright.Rejected)
				var redirect *keywright.RedirectError
				require.ErrorAs(t, err, &redirect, "%d %s", status, name)
				assert.Equal(t, status, redirect.StatusCode)
				assert.Equal(t, strings.HasPrefix(name, "same"), redirect.SameOrigin, name)
				w.wire(1)
				w.applied(0)
				assert.Len(t, w.fake.Requests(), 1)
			}
		}
		assert.Zero(t, reached.Load())
		w.lockedOut()
	},
	"F23": func(t *testing.T, op string) {
		w := newWorld(t, op, "")
		for status, class := range map[int]error{
			400: keywright.ErrInvalid, 403: keywright.ErrForbidden, 404: keywright.ErrNotFound,
			405: nil, 409: keywright.ErrConflict, 422: keywright.ErrInvalid, 501: keywright.ErrServer,
		} {
			w.fake.Forget()
			w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), Status: status, Body: `{"error":"some-slug","message":"no"}`})
			err := w.do(t.Context())
			w.outcome(err, keywright.Rejected)
			var api *keywright.APIError
			require.ErrorAs(t, err, &api)
			assert.Equal(t, status, api.StatusCode)
			assert.Equal(t, "some-slug", api.Code)
			if class != nil {
				require.ErrorIs(t, err, class)
			}
			w.wire(1)
			w.applied(0)
		}
		w.lockedOut()
	},
	"F24": func(t *testing.T, op string) {
		t.Run("no other token", func(t *testing.T) {
			w := newWorld(t, op, "")
			w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), Status: 401, Times: -1})
			err := w.do(t.Context())
			w.outcome(err, keywright.Rejected)
			require.ErrorIs(t, err, keywright.ErrUnauthorized)
			w.wire(1)
			w.applied(0)
		})
		t.Run("another token", func(t *testing.T) {
			w := newWorld(t, op, "")
			source := &reloading{tokens: []string{"stale-token-0000", w.fake.Token()}}
			w.rc = ricloudAt(t, w.fake.URL(), "", keywright.WithTokenSource(source))
			require.NoError(t, w.do(t.Context()))
			w.wire(2)
			if w.mutates() {
				w.applied(1)
			}
			assert.Equal(t, int64(1), source.reloads.Load())
			w.lockedOut()
		})
		t.Run("no better token", func(t *testing.T) {
			w := newWorld(t, op, "")
			source := &reloading{tokens: []string{"stale-token-0000", "stale-token-1111"}}
			w.rc = ricloudAt(t, w.fake.URL(), "", keywright.WithTokenSource(source))
			w.outcome(w.do(t.Context()), keywright.Rejected)
			w.wire(2) // no loop
			w.applied(0)
		})
	},
	"F25": func(t *testing.T, op string) {
		for _, after := range []string{"", "1"} {
			t.Run("Retry-After "+after, func(t *testing.T) {
				w := newWorld(t, op, "")
				w.fake.Inject(keywrighttest.Retry(w.wireOp(), 429, after))
				start := time.Now()
				require.NoError(t, w.do(t.Context()))
				if after != "" {
					assert.GreaterOrEqual(t, time.Since(start), time.Second)
				}
				w.wire(2)
				if w.mutates() {
					w.applied(1)
				}
			})
		}
	},
	"F26": func(t *testing.T, op string) {
		for _, after := range []string{"3155760000", "-1", "9223372036854775807", "18446744073709551616", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "1.5"} {
			long := after == "3155760000" || strings.Contains(after, "9999 ")
			for _, status := range []int{429, 503} {
				t.Run(fmt.Sprint(status, " ", after), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, op, "")
					w.fake.Inject(keywrighttest.Retry(w.wireOp(), status, after))
					start := time.Now()
					err := w.do(t.Context())
					assert.Less(t, time.Since(start), 5*time.Second)
					switch {
					case status == 503 && op == "delete":
						require.NoError(t, err) // looked into, and sent again
					case status == 503 && w.mutates():
						w.outcome(err, keywright.Ambiguous)
						w.wire(1)
						w.applied(0)
					case long:
						require.Error(t, err)
						w.wire(1)
						var api *keywright.APIError
						require.ErrorAs(t, err, &api)
						assert.Greater(t, api.RetryAfter, time.Minute)
					default:
						require.NoError(t, err)
						w.wire(2)
					}
				})
			}
		}
	},
	"F27": func(t *testing.T, op string) {
		for _, status := range []int{500, 502, 503, 504} {
			t.Run(fmt.Sprint(status), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, op, "")
				w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), Status: status, Body: "<html>oops</html>"})
				err := w.do(t.Context())
				switch op {
				case "read":
					require.NoError(t, err)
					w.wire(2)
				case "delete":
					require.NoError(t, err)
					w.wire(2)
					w.applied(1)
				default:
					w.outcome(err, keywright.Ambiguous)
					require.ErrorIs(t, err, keywright.ErrServer)
					w.wire(1)
					w.recovered(err, keywright.NotApplied)
					w.applied(0)
				}
				w.lockedOut()
			})
		}
	},
	"F28": func(t *testing.T, op string) {
		for _, status := range []int{500, 502, 504, 408} {
			t.Run(fmt.Sprint(status), func(t *testing.T) {
				w := newWorld(t, op, "")
				w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), When: keywrighttest.AfterApply, Status: status, Body: "<html>oops</html>"})
				w.lostAfterApply(w.do(t.Context()), keywright.Ambiguous)
			})
		}
	},
	"F29": func(t *testing.T, op string) {
		for _, frame := range h2Frames {
			t.Run(frame.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, op, "")
				srv := newH2Server(t, frame)
				w.rc = ricloudAt(t, srv.url, w.fake.Token(), srv.client, counting(&w.sent), keywright.WithTimeout(time.Second))
				err := w.do(t.Context())
				require.Error(t, err)
				if op == "read" || op == "delete" {
					return // nothing is lost by sending these again
				}
				w.outcome(err, keywright.Ambiguous)
				assert.Equal(t, int64(1), srv.streams.Load(), "on the wire")
			})
		}
	},
	"F30": func(t *testing.T, op string) {
		for name, tc := range map[string]struct {
			fault   keywrighttest.Fault
			opts    []keywright.Option
			after   time.Duration
			outcome keywright.Outcome
		}{
			"before":      {after: -1, outcome: keywright.NotSent},
			"in back-off": {fault: keywrighttest.Retry("", 429, "30"), after: 100 * time.Millisecond, outcome: keywright.NotSent},
			"in dial":     {opts: []keywright.Option{dial(nil)}, after: 100 * time.Millisecond, outcome: keywright.NotSent},
			"after send":  {fault: keywrighttest.Fault{When: keywrighttest.AfterApply, Do: keywrighttest.Stall}, after: 100 * time.Millisecond, outcome: keywright.Ambiguous},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, op, "", append(tc.opts, keywright.WithTimeout(20*time.Second))...)
				if tc.fault.When != 0 || tc.fault.Status != 0 {
					w.fake.Inject(tc.fault)
				}
				why := errors.New("shutting down")
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				ended := make(chan time.Time, 1)
				stop := func() { ended <- time.Now(); cancel(why) }
				if tc.after < 0 {
					stop()
				} else {
					time.AfterFunc(tc.after, stop)
				}
				err := w.do(ctx)
				assert.Less(t, time.Since(<-ended), 500*time.Millisecond) // 50 ms, on a machine that is not busy with everything else
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, why)
				if w.mutates() {
					w.outcome(err, tc.outcome)
				}
				if name == "in back-off" {
					var api *keywright.APIError
					require.ErrorAs(t, err, &api, "the last answer is kept")
					require.ErrorIs(t, err, keywright.ErrRateLimited)
				}
				if name == "before" {
					assert.Empty(t, w.fake.Requests())
				}
			})
		}
	},
}

func appliedThen(t *testing.T, op string, do keywrighttest.Action, outcome keywright.Outcome) {
	var opts []keywright.Option
	if do == keywrighttest.Stall || do == keywrighttest.Drip {
		opts = append(opts, brief())
	}
	w := newWorld(t, op, "", opts...)
	w.fake.Inject(keywrighttest.Fault{Op: w.wireOp(), When: keywrighttest.AfterApply, Do: do})
	w.lostAfterApply(w.do(t.Context()), outcome)
}

// unreadable checks a 2xx answer that is not what it should be: final for a
// read, ResultLost for a change, and nothing to a delete.
func (w *world) unreadable(err error) {
	w.Helper()
	switch w.op {
	case "delete":
		require.NoError(w, err)
		return
	case "read":
		w.outcome(err, keywright.Rejected)
	default:
		w.outcome(err, keywright.ResultLost)
		w.recovered(err, keywright.Applied)
	}
	var bad *keywright.DecodeError
	require.ErrorAs(w, err, &bad)
	w.wire(1)
	w.lockedOut()
}

func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, cell := range readTSV(t, "testdata/fault-matrix.tsv") {
		name := cell["cell"]
		id, op, ok := strings.Cut(name, "-")
		run := scenarios[id]
		switch {
		case name[0] == 'F' && ok:
			require.NotNil(t, run, name)
		case strings.Contains(name, "+probe:"), name[0] == 'P':
			continue // TestRecoveryProbes, TestPagingCells
		default:
			// C and S are played by package rotation; W waits for its package.
			require.Contains(t, "CWS", name[:1], "a cell of no known kind")
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, op)
		})
	}
	require.Equal(t, 180, ran)
}

// TestRecoveryProbes meets faults in the read-back itself.
func TestRecoveryProbes(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, cell := range readTSV(t, "testdata/fault-matrix.tsv") {
		name := cell["cell"]
		first, probe, ok := strings.Cut(name, "+probe:")
		if !ok {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuse := &atomic.Bool{}
			w := newWorld(t, "rotate", "", brief(), keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
				return roundTripFunc(func(r *http.Request) (*http.Response, error) {
					if refuse.Load() {
						return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
					}
					return next.RoundTrip(r)
				})
			}))
			f := keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply}
			switch first {
			case "F11":
				f.Do = keywrighttest.Drop
			case "F12":
				f.Do = keywrighttest.Reset
			case "F13":
				f.Do = keywrighttest.Stall
			case "F14":
				f.When, f.Do, f.Delay = keywrighttest.LateApply, keywrighttest.Stall, attemptTimeout+900*time.Millisecond
			case "F15":
				f.Do = keywrighttest.Cut
			case "F16":
				f.Do = keywrighttest.Drip
			case "F17":
				f.Edit = func([]byte) []byte { return []byte("<html>") }
			case "F18":
				f.Edit = func([]byte) []byte { return []byte("{}") }
			default:
				t.Fatal("no such fault")
			}
			w.fake.Inject(f)
			err := w.do(t.Context())
			require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
			var lost recoverer
			require.ErrorAs(t, err, &lost)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			want := keywright.Applied
			switch probe, _, _ := strings.Cut(probe, " "); probe {
			case "ok":
			case "F03":
				refuse.Store(true)
				want = keywright.Ambiguous
			case "F24":
				w.fake.Inject(keywrighttest.Fault{Op: "key.retrieve", Status: 401, Times: -1})
				want = keywright.Ambiguous
			case "F25":
				w.fake.Inject(keywrighttest.Retry("key.retrieve", 429, "1"))
			case "F28":
				w.fake.Inject(keywrighttest.Fault{Op: "key.retrieve", When: keywrighttest.AfterApply, Status: 500, Times: 2})
			default:
				t.Fatal("no such probe")
			}
			found, rerr := lost.Recover(ctx)
			require.NotNil(t, found)
			assert.Equal(t, want.String(), found.Outcome.String())
			assert.Equal(t, want != keywright.Applied, rerr != nil)
			assert.Equal(t, 1, w.fake.Count("key.rotate"), "nothing is sent again")
			if want == keywright.Applied {
				assert.Equal(t, w.fake.TokenOf(2), found.Resource().(*keywright.Key).Token.Reveal())
			}
		})
	}
	require.Equal(t, 40, ran)
}

// reloading is a token source with one token after the other.
type reloading struct {
	tokens  []string
	reloads atomic.Int64
}

func (r *reloading) Token(context.Context) (keywright.Secret, error) {
	return keywright.NewSecret(r.tokens[min(int(r.reloads.Load()), len(r.tokens)-1)]), nil
}

func (r *reloading) Reload(ctx context.Context, _ keywright.Secret) (keywright.Secret, error) {
	r.reloads.Add(1)
	return r.Token(ctx)
}

// trusting is a client that trusts the certificate of srv.
func trusting(srv *httptest.Server, change func(*tls.Config)) keywright.Option {
	transport := srv.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = ""
	if change != nil {
		change(transport.TLSClientConfig)
	}
	transport.DisableKeepAlives = true
	return keywright.WithHTTPClient(&http.Client{Transport: transport})
}

// rawListener serves connections one by one with handle, and closes them.
func rawListener(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var work sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			work.Go(func() {
				handle(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return l.Addr().String()
}

// pipe carries a connection on to target.
func pipe(c net.Conn, target string) {
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	var work sync.WaitGroup
	work.Go(func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(c, up)
	_ = c.Close()
	work.Wait()
	_ = up.Close()
}

// bomb is 33 MiB of spaces, compressed to a thousandth. Compressing one MiB
// and repeating it is enough: gzip members may follow each other.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20))
	_ = z.Close()
	return bytes.Repeat(b.Bytes(), 33)
})

// h2Frame is what an HTTP/2 server sends once it has a request.
type h2Frame struct {
	name  string
	bytes func(stream uint32) []byte
}

func rst(code uint32) func(uint32) []byte {
	return func(stream uint32) []byte {
		return append([]byte{0, 0, 4, 3, 0}, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, stream), code)...)
	}
}

func goaway(last func(uint32) uint32) func(uint32) []byte {
	return func(stream uint32) []byte {
		b := []byte{0, 0, 8, 7, 0, 0, 0, 0, 0}
		b = binary.BigEndian.AppendUint32(b, last(stream))
		return binary.BigEndian.AppendUint32(b, 0)
	}
}

var h2Frames = []h2Frame{
	{"RST REFUSED_STREAM", rst(7)},
	{"RST PROTOCOL_ERROR", rst(1)},
	{"RST INTERNAL_ERROR", rst(2)},
	{"RST CANCEL", rst(8)},
	{"RST ENHANCE_YOUR_CALM", rst(11)},
	{"GOAWAY last=0", goaway(func(uint32) uint32 { return 0 })},
	{"GOAWAY last=id", goaway(func(id uint32) uint32 { return id })},
	{"close", func(uint32) []byte { return nil }},
}

// h2Server speaks just enough HTTP/2 to receive requests, count them, and
// answer each with one frame.
type h2Server struct {
	url     string
	client  keywright.Option
	streams atomic.Int64
}

func newH2Server(t *testing.T, frame h2Frame) *h2Server {
	t.Helper()
	donor := httptest.NewUnstartedServer(nil)
	donor.EnableHTTP2 = true
	donor.StartTLS()
	config := donor.TLS.Clone()
	config.NextProtos = []string{"h2"}
	transport := donor.Client().Transport.(*http.Transport).Clone()
	donor.Close()
	t.Cleanup(transport.CloseIdleConnections)
	s := &h2Server{client: keywright.WithHTTPClient(&http.Client{Transport: transport})}
	addr := rawListener(t, func(raw net.Conn) {
		c := tls.Server(raw, config)
		if c.Handshake() != nil {
			return
		}
		preface := make([]byte, 24)
		if _, err := io.ReadFull(c, preface); err != nil {
			return
		}
		_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
		for {
			head := make([]byte, 9)
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
			if _, err := io.CopyN(io.Discard, c, int64(length)); err != nil {
				return
			}
			kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
			switch {
			case kind == 4 && flags == 0:
				_, _ = c.Write([]byte{0, 0, 0, 4, 1, 0, 0, 0, 0}) // acknowledge
			case kind == 1:
				s.streams.Add(1)
			}
			if (kind == 0 || kind == 1) && flags&1 != 0 { // END_STREAM: the request is complete
				b := frame.bytes(stream)
				if b == nil {
					return
				}
				_, _ = c.Write(b)
			}
		}
	})
	s.url = "https://" + addr
	return s
}

// readTSV reads a table of testdata as rows by column.
func readTSV(t testing.TB, path string) []map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	head := strings.Split(lines[0], "\t")
	var rows []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, v := range strings.Split(line, "\t") {
			row[head[i]] = v
		}
		rows = append(rows, row)
	}
	return rows
}
