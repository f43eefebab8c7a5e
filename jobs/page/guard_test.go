package page_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
)

const canary = "canary-page-token-é-0123456789"

func oneKey() *fake { return &fake{all: []jobs.Status{{Job: "billing", State: "DONE"}}} }

func TestNew_options(t *testing.T) {
	t.Parallel()
	f := oneKey()
	_, err := page.New(nil, f)
	require.Error(t, err)
	_, err = page.New(f, nil)
	require.Error(t, err)
	for name, opt := range map[string]page.Option{
		"no token": page.WithToken(keywright.Secret{}), "no clock": page.WithClock(nil), "no logger": page.WithLogger(nil),
		"short": page.WithRefresh(time.Millisecond), "negative": page.WithRefresh(-time.Second),
		"relative": page.WithBase("rotation"), "host": page.WithBase("//evil"), "dots": page.WithBase("/a/../b"), "query": page.WithBase("/a?b"), "quote": page.WithBase(`/a"b`), "space": page.WithBase("/a b"), "escape": page.WithBase("/a%2Fb"),
	} {
		_, err := page.New(f, f, opt)
		require.Error(t, err, name)
	}
	for _, base := range []string{"", "/", "/a", "/a/b-c_d.e/"} {
		_, err := page.New(f, f, page.WithBase(base))
		require.NoError(t, err, base)
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	p := newPage(t, oneKey())
	for _, target := range []string{"/", "/keys/billing", "/icon.svg", "/nothing"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"} {
			w := request(p, method, target, nil)
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
			require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
		}
		full, head := get(p, target), request(p, http.MethodHead, target, nil)
		require.Equal(t, full.Code, head.Code)
		require.Equal(t, full.Header(), head.Header())
		require.Empty(t, head.Body.Bytes())
		require.NotEmpty(t, full.Body.Bytes())
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	f := oneKey()
	p, away, locked := newPage(t, f), newPage(t, &fake{err: errors.New("away")}), newPage(t, f, page.WithToken(keywright.NewSecret(canary)))
	for name, w := range map[string]*httptest.ResponseRecorder{
		"overview": get(p, "/"), "key": get(p, "/keys/billing"), "404": get(p, "/x"), "405": request(p, "POST", "/", nil), "503": get(away, "/"), "401": get(locked, "/"),
		"421": request(p, "GET", "/", func(r *http.Request) { r.Host = "evil.example" }), "icon": get(p, "/icon.svg"),
	} {
		h := w.Header()
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), name)
		require.Equal(t, "no-referrer", h.Get("Referrer-Policy"), name)
		require.Equal(t, "no-store", h.Get("Cache-Control"), name)
		require.Equal(t, "same-origin", h.Get("Cross-Origin-Opener-Policy"), name)
		require.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"), name)
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			require.Contains(t, policy, part, name)
		}
		require.NotContains(t, policy, "unsafe", name)
		require.NotContains(t, policy, "script-src", name)
		if name == "icon" {
			require.Equal(t, "image/svg+xml", h.Get("Content-Type"))
			continue
		}
		require.Equal(t, "text/html; charset=utf-8", h.Get("Content-Type"), name)
		// The hash is of what stands between the tags.
		_, rest, ok := strings.Cut(w.Body.String(), "<style>")
		require.True(t, ok, name)
		style, _, ok := strings.Cut(rest, "</style>")
		require.True(t, ok, name)
		sum := sha256.Sum256([]byte(style))
		require.Contains(t, policy, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'", name)
		parse(t, w.Body.String())
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	hosts := map[string]int{
		"localhost": 200, "localhost:8477": 200, "LOCALHOST:1": 200, "127.0.0.1": 200, "127.0.0.1:8477": 200, "127.9.8.7:80": 200, "[::1]": 200, "[::1]:8477": 200,
		"": 421, "evil.example": 421, "evil.example:8477": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:8477": 421, "0.0.0.0:8477": 421, "10.0.0.1": 421,
		"localhost@evil.example": 421, "evil.example#localhost": 421, "[localhost": 421, "2130706433": 421, "127.1": 421, "[fe80::1]": 421, "localhost:8477:80": 421,
	}
	p := newPage(t, oneKey())
	locked := newPage(t, oneKey(), page.WithToken(keywright.NewSecret(canary)))
	for host, status := range hosts {
		w := request(p, "GET", "/", func(r *http.Request) { r.Host = host })
		require.Equal(t, status, w.Code, host)
		require.Equal(t, status == 200, strings.Contains(w.Body.String(), "billing"), host)
		// With a token a name of somebody else's does not get a browser to send it.
		w = request(locked, "GET", "/", func(r *http.Request) { r.Host = host; r.SetBasicAuth("", canary) })
		require.Equal(t, 200, w.Code, host)
	}
}

func TestLocalAddress(t *testing.T) {
	t.Parallel()
	from := func(p http.Handler, addr net.Addr) int {
		return request(p, "GET", "/", func(r *http.Request) {
			*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
		}).Code
	}
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 8477} }
	p := newPage(t, oneKey())
	require.Equal(t, 200, from(p, tcp("127.0.0.1")))
	require.Equal(t, 200, from(p, tcp("::1")))
	require.Equal(t, 200, from(p, &net.UnixAddr{Name: "/run/rotator.sock"}))
	// A Host header proves nothing to a server that listens on all addresses.
	require.Equal(t, 403, from(p, tcp("10.0.0.7")))
	require.Equal(t, 403, from(p, tcp("2001:db8::1")))
	locked := newPage(t, oneKey(), page.WithToken(keywright.NewSecret(canary)))
	require.Equal(t, 401, from(locked, tcp("10.0.0.7")))
}

func TestToken(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := oneKey()
	asked := false
	f.snapshot = func(context.Context) error { asked = true; return nil }
	p := newPage(t, f, page.WithToken(keywright.NewSecret(canary)), page.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	with := func(header string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", header) }
	}
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for _, header := range []string{basic("", canary), basic("anyone", canary), "Bearer " + canary, "bearer  " + canary + " "} {
		for _, target := range []string{"/", "/keys/billing", "/icon.svg"} {
			w := request(p, "GET", target, with(header))
			require.Equal(t, 200, w.Code)
			require.NotContains(t, w.Body.String(), canary)
		}
	}
	asked = false
	challenge := `Basic realm="keywright", charset="UTF-8"`
	var refused string
	for _, header := range []string{
		"", "Basic", "Bearer", "Bearer ", basic("", ""), basic(canary, ""), basic("", canary+"x"), basic("", canary[:len(canary)-1]), basic("", strings.ToUpper(canary)),
		"Bearer x" + canary, "Bearer", canary, "Token " + canary, "Basic " + canary, basic("", "\x00"), "Basic " + base64.StdEncoding.EncodeToString([]byte(canary)),
	} {
		for _, target := range []string{"/", "/keys/billing", "/keys/nobody", "/nothing", "/icon.svg"} {
			for _, method := range []string{"GET", "POST"} {
				w := request(p, method, target, with(header))
				require.Equal(t, 401, w.Code, header)
				require.Equal(t, challenge, w.Header().Get("WWW-Authenticate"))
				require.NotContains(t, w.Body.String(), "billing")
				require.NotContains(t, w.Body.String(), "worker-a")
				// Nothing tells one refusal from another.
				if refused == "" {
					refused = w.Body.String()
				}
				require.Equal(t, refused, w.Body.String())
			}
		}
	}
	require.False(t, asked, "nothing is asked for somebody without the token")
	require.Equal(t, 1, strings.Count(log.String(), "wrong token"), "who guesses does not fill the log")
	require.NotContains(t, log.String(), "canary")
}

func TestServed(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(newPage(t, oneKey()))
	defer s.Close()
	for target, status := range map[string]int{"/": 200, "/keys/billing": 200, "//": 404, "/keys/": 404, "/keys": 404, "/keys/%": 400, "/keys/nobody": 404, "/favicon.ico": 404} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		require.NoError(t, err)
		_, err = conn.Write([]byte("GET " + target + " HTTP/1.0\r\nHost: localhost\r\n\r\n"))
		require.NoError(t, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(conn)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Contains(t, strings.SplitN(b.String(), "\r\n", 2)[0], http.StatusText(status), target)
	}
}

// What is served beside the page is guarded as it is.
func TestGuard(t *testing.T) {
	t.Parallel()
	inner := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	ask := func(g http.Handler, edit func(*http.Request)) int {
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8477/metrics", nil)
		edit(r)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w.Code
	}
	open, closed := page.Guard(keywright.Secret{}, inner), page.Guard(keywright.NewSecret("canary-0123456789"), inner)
	for host, want := range map[string]int{
		"localhost": 204, "127.0.0.1:8477": 204, "[::1]": 204, "[::1]:1": 204, "": 421, "evil.example": 421, "127.0.0.1.evil.example": 421, "[": 421, "localhost.": 421,
	} {
		require.Equal(t, want, ask(open, func(r *http.Request) { r.Host = host }), host)
	}
	for header, want := range map[string]int{
		"": 401, "Bearer canary-0123456789": 204, "bearer  canary-0123456789 ": 204, "Bearer": 401, "Bearer x": 401, "Token canary-0123456789": 401,
		"canary-0123456789": 401, "Basic !": 401, "Basic eDpjYW5hcnktMDEyMzQ1Njc4OQ==": 204, "Basic Y2FuYXJ5LTAxMjM0NTY3ODk6": 401,
	} {
		require.Equal(t, want, ask(closed, func(r *http.Request) { r.Header.Set("Authorization", header) }), header)
	}
}
