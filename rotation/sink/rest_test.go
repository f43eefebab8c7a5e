package sink

import (
	"context"
	"encoding/base64"
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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

// Canaries: none of them may appear in an error.
const (
	oldToken  = "canary-old/+<\"&>0123456789"
	newToken  = "canary-new/+<\"&>9876543210"
	authToken = "canary-auth.0123456789"
)

var newSecret = keywright.NewSecret(newToken)

// service is a fake of one of the services, with state, that checks each
// request it serves.
type service struct {
	t     *testing.T
	serve http.HandlerFunc // the protocol; called with mu held
	sink  func(address string, source keywright.TokenSource, hc *http.Client) (Sink, error)
	held  func() string // the token that it holds
	store func(string)  // somebody else writes
	// accepts tells the Authorization that this service expects.
	accepts func(r *http.Request, token string) bool
	// refusal is the status for a token that is not accepted.
	refusal int

	url string

	mu   sync.Mutex
	auth string
	seen []string // method and path of each request
	hook func(w http.ResponseWriter, r *http.Request) bool
	lose func(r *http.Request) bool // the answer, after the request was acted on
}

// start serves s until the test ends.
func (s *service) start(t *testing.T) *service {
	s.t, s.auth = t, authToken
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.EscapedPath())
	hook, lose := s.hook, s.lose
	s.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.accepts(r, s.auth) {
		answerJSON(w, s.refusal, `{"message":"Bad credentials","errors":["permission denied"]}`)
		return
	}
	if lose != nil && lose(r) {
		s.serve(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	s.serve(w, r)
}

// do runs f while no request is served.
func (s *service) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// requests returns method and path of each request so far.
func (s *service) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// intercept answers requests in place of the service while f returns true.
func (s *service) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// writes returns how many requests were made that are not GET.
func (s *service) writes() int {
	n := 0
	for _, r := range s.requests() {
		if !strings.HasPrefix(r, "GET ") {
			n++
		}
	}
	return n
}

func (s *service) open(t *testing.T) Sink {
	t.Helper()
	out, err := s.sink(s.url, keywright.StaticToken(keywright.NewSecret(authToken)), nil)
	require.NoError(t, err)
	return out
}

func answerJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// strictly decodes a request's body, and nothing but what v has.
func strictly(t *testing.T, r *http.Request, v any) {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	assert.NoError(t, dec.Decode(v), "body of %s %s", r.Method, r.URL.Path)
}

// services are the fakes, started by name.
var services = map[string]func(t *testing.T) *service{
	"vault":      func(t *testing.T) *service { return newVaultService().start(t) },
	"kubernetes": func(t *testing.T) *service { return newKubernetesService().start(t) },
	"github":     func(t *testing.T) *service { return newGitHubService(t).start(t) },
}

func eachService(t *testing.T, test func(t *testing.T, s *service)) {
	for name, start := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// requireClass checks an error's class, and that its text gives nothing away.
func requireClass(t *testing.T, err, class error) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, class)
	requireClean(t, err)
}

func requireClean(t *testing.T, err error) {
	t.Helper()
	for _, format := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(format, err)
		for _, s := range []string{oldToken, newToken, authToken} {
			for _, form := range []string{
				s, base64.RawStdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)),
				url.PathEscape(s), url.QueryEscape(s), strings.ReplaceAll(s, `"`, `\"`),
			} {
				require.NotContains(t, text, form)
			}
		}
		require.NotContains(t, text, "\n")
	}
	require.Less(t, len(err.Error()), 900)
}

func TestServicesDeliver(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		k := s.open(t)
		assert.NotEmpty(t, k.Name())
		assert.NotContains(t, k.Name(), authToken)
		traits := k.Traits()
		assert.NotEmpty(t, traits.Guarantee)
		assert.Equal(t, traits.Readable, traits.Grade == GradeReadBack)

		absent, err := k.Read(t.Context())
		require.NoError(t, err)
		assert.Equal(t, Reading{}, absent)
		requireNotConfirmed(t, k)

		require.NoError(t, k.CompareAndWrite(t.Context(), absent, keywright.NewSecret(oldToken)))
		assert.Equal(t, oldToken, s.held())
		first, err := k.Read(t.Context())
		require.NoError(t, err)
		assert.NotEmpty(t, first.Version)
		requireNotConfirmed(t, k)

		require.NoError(t, k.CompareAndWrite(t.Context(), first, newSecret))
		assert.Equal(t, newToken, s.held())
		require.NoError(t, k.Confirm(t.Context(), newSecret))
		second, err := k.Read(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, first.Version, second.Version)
		if traits.Readable {
			assert.Equal(t, newToken, second.Token.Reveal())
		} else {
			assert.True(t, second.Token.IsZero())
		}

		before := s.writes()
		for _, stale := range []Reading{absent, first} {
			requireClass(t, k.CompareAndWrite(t.Context(), stale, keywright.NewSecret("another-token")), ErrConflict)
		}
		assert.Equal(t, before, s.writes(), "a stale write must not be sent")
		assert.Equal(t, newToken, s.held())

		s.store("somebody-elses-token")
		requireClass(t, k.CompareAndWrite(t.Context(), second, newSecret), ErrConflict)
		requireClass(t, k.Confirm(t.Context(), newSecret), ErrConflict)
		assert.Equal(t, "somebody-elses-token", s.held())

		now, err := k.Read(t.Context())
		require.NoError(t, err)
		requireClass(t, k.CompareAndWrite(t.Context(), now, keywright.Secret{}), ErrRefused)
	})
}

func requireNotConfirmed(t *testing.T, k Sink) {
	t.Helper()
	class := ErrConflict
	if !k.Traits().Readable {
		class = ErrTemporary
	}
	requireClass(t, k.Confirm(t.Context(), newSecret), class)
	require.Error(t, k.Confirm(t.Context(), keywright.Secret{}))
}

// allOps calls each method that makes requests, and returns their errors.
func allOps(ctx context.Context, k Sink) map[string]error {
	_, read := k.Read(ctx)
	errs := map[string]error{"read": read, "write": k.CompareAndWrite(ctx, Reading{}, newSecret)}
	if k.Traits().Readable {
		errs["confirm"] = k.Confirm(ctx, newSecret)
	}
	return errs
}

func TestServicesFail(t *testing.T) {
	t.Parallel()
	said := `{"message":%[1]q,"errors":[%[1]q],"kind":"Status"}`
	echo := fmt.Sprintf(said, "no\r\n"+authToken+" "+base64.RawStdEncoding.EncodeToString([]byte(authToken))+
		" 0123456789abcdefABCDEF_-"+strings.Repeat(" and so on", 1000))
	tests := map[string]struct {
		answer http.HandlerFunc
		class  error
		says   string
	}{
		"429 with seconds": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "17")
			answerJSON(w, 429, echo)
		}, ErrTemporary, "asks to wait 17s"},
		"429 with a date": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(time.Hour-30*time.Second).UTC().Format(http.TimeFormat))
			answerJSON(w, 429, "")
		}, ErrTemporary, "asks to wait 59m"},
		"429 with nonsense": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", authToken)
			answerJSON(w, 429, "")
		}, ErrTemporary, "(429)"},
		"500": {func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 500, echo) }, ErrTemporary, `(500: "no [REDACTED] [REDACTED] [REDACTED] and so on`},
		"503 of a proxy": {func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 503, "<html>"+newToken+"</html>")
		}, ErrTemporary, "(503)"},
		"401": {func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 401, echo) }, ErrRefused, "is not accepted"},
		"403": {func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 403, echo) }, ErrRefused, "it needs "},
		"400": {func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 400, echo) }, ErrRefused, "(400: "},
		"418": {func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 418, "") }, ErrRefused, "(418)"},
		"cut body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			answerJSON(w, 200, `{"data":`)
		}, ErrTemporary, "before the answer was complete"},
		"no answer": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, ErrTemporary, "connection closed"},
		"huge body": {func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, strings.Repeat("{", maxAnswer+1))
		}, ErrRefused, "larger than 2 MiB"},
		"not JSON": {func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, "<html>"+newToken+"</html>")
		}, ErrTemporary, "not the JSON"},
		"something else": {func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, `{"data":{}}`)
		}, ErrRefused, "is not"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachService(t, func(t *testing.T, s *service) {
				s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
					test.answer(w, r)
					return true
				})
				for op, err := range allOps(t.Context(), s.open(t)) {
					requireClass(t, err, test.class)
					assert.Contains(t, err.Error(), test.says, op)
					var e *Error
					require.ErrorAs(t, err, &e)
					assert.Equal(t, op, e.Op)
					assert.Contains(t, err.Error(), s.open(t).Name())
				}
				assert.Zero(t, s.writes())
			})
		})
	}
}

// TestServicesFailWrites is what TestServicesFail is, for the request that
// changes something.
func TestServicesFailWrites(t *testing.T) {
	t.Parallel()
	echo := fmt.Sprintf(`{"message":%[1]q,"errors":[%[1]q]}`, newToken+" "+authToken+" "+url.QueryEscape(newToken)+" "+
		base64.StdEncoding.EncodeToString([]byte(newToken))+" "+base64.URLEncoding.EncodeToString([]byte(newToken)))
	for status, class := range map[int]error{
		429: ErrTemporary, 500: ErrTemporary, 502: ErrTemporary, 400: ErrRefused, 401: ErrRefused, 403: ErrRefused,
		422: ErrRefused, 302: ErrRefused, 307: ErrRefused,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			eachService(t, func(t *testing.T, s *service) {
				elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					t.Errorf("redirect was followed: %s with %v", r.Method, r.Header)
				}))
				defer elsewhere.Close()
				s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodGet {
						return false
					}
					w.Header().Set("Location", elsewhere.URL+"/"+newToken)
					answerJSON(w, status, echo)
					return true
				})
				requireClass(t, s.open(t).CompareAndWrite(t.Context(), Reading{}, newSecret), class)
				assert.Positive(t, s.writes())
				assert.Empty(t, s.held())
			})
		})
	}
}

func TestServicesNeverRedirect(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		var followed atomic.Int32
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
		defer elsewhere.Close()
		s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return true
		})
		hc := &http.Client{Transport: ownTransport(nil)}
		given, err := s.sink(s.url, keywright.StaticToken(keywright.NewSecret(authToken)), hc)
		require.NoError(t, err)
		assert.Nil(t, hc.CheckRedirect, "the client that was given must not be changed")
		for _, k := range []Sink{s.open(t), given} {
			for _, err := range allOps(t.Context(), k) {
				requireClass(t, err, ErrRefused)
				assert.Contains(t, err.Error(), "redirect")
			}
		}
		assert.Zero(t, followed.Load())
	})
}

func TestServicesUnreachable(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		closed := httptest.NewServer(http.NotFoundHandler())
		closed.Close()
		k, err := s.sink(closed.URL, keywright.StaticToken(keywright.NewSecret(authToken)), nil)
		require.NoError(t, err)
		for _, err := range allOps(t.Context(), k) {
			requireClass(t, err, ErrTemporary)
			assert.Contains(t, err.Error(), "connection refused")
		}

		// What does not speak TLS, or with a certificate that nobody knows, is a
		// matter of settings.
		secure := httptest.NewUnstartedServer(http.NotFoundHandler())
		secure.Config.ErrorLog = log.New(io.Discard, "", 0)
		secure.StartTLS()
		defer secure.Close()
		for address, says := range map[string]string{
			secure.URL: "certificate is not trusted",
			"https" + strings.TrimPrefix(s.url, "http"): "does not speak TLS",
		} {
			k, err := s.sink(address, keywright.StaticToken(keywright.NewSecret(authToken)), nil)
			require.NoError(t, err)
			for _, err := range allOps(t.Context(), k) {
				requireClass(t, err, ErrRefused)
				assert.Contains(t, err.Error(), says)
			}
		}
	})
}

// TestServicesTransportErrors: what a transport says may hold anything.
func TestServicesTransportErrors(t *testing.T) {
	t.Parallel()
	for says, cause := range map[string]error{
		"could not be resolved": &net.DNSError{Err: "no such host", Name: newToken, IsNotFound: true},
		"no usable answer":      errors.New("malformed HTTP response " + newToken),
		"timed out":             fmt.Errorf("%s: %w", newToken, os.ErrDeadlineExceeded),
		"connection closed":     fmt.Errorf("%s: %w", newToken, io.EOF),
	} {
		eachService(t, func(t *testing.T, s *service) {
			hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, cause })}
			k, err := s.sink(s.url, keywright.StaticToken(keywright.NewSecret(authToken)), hc)
			require.NoError(t, err)
			for _, err := range allOps(t.Context(), k) {
				requireClass(t, err, ErrTemporary)
				assert.Contains(t, err.Error(), says)
			}
		})
	}
}

func TestServicesTimeOut(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		s.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			return true
		})
		k, err := s.sink(s.url, keywright.StaticToken(keywright.NewSecret(authToken)), &http.Client{
			Transport: ownTransport(nil), Timeout: 30 * time.Millisecond,
		})
		require.NoError(t, err)
		for _, err := range allOps(t.Context(), k) {
			requireClass(t, err, ErrTemporary)
			assert.Contains(t, err.Error(), "timed out")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		for _, err := range allOps(ctx, s.open(t)) {
			requireClass(t, err, context.DeadlineExceeded)
			assert.NotErrorIs(t, err, ErrTemporary)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		for _, err := range allOps(ctx, s.open(t)) {
			requireClass(t, err, context.Canceled)
		}
	})
}

// TestServicesRenewedToken: a token that expires is replaced in its file, and
// the source, which looks once a second, is asked to look now.
func TestServicesRenewedToken(t *testing.T) {
	t.Parallel()
	const renewed = "canary-renewed-0123456789"
	eachService(t, func(t *testing.T, s *service) {
		file := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(file, []byte(authToken+"\n"), 0o600))
		k, err := s.sink(s.url, keywright.FileToken(file), nil)
		require.NoError(t, err)
		reading, err := k.Read(t.Context())
		require.NoError(t, err)

		require.NoError(t, os.WriteFile(file, []byte(renewed+"\n"), 0o600))
		s.do(func() { s.auth, s.seen = renewed, nil })
		require.NoError(t, k.CompareAndWrite(t.Context(), reading, newSecret))
		assert.Equal(t, newToken, s.held())
		seen := s.requests()
		assert.Equal(t, seen[0], seen[1], "the refused request is replayed")
		assert.NotEqual(t, seen[1], seen[2], "once")
	})
}

// source is a Reloader made of its answers.
type source struct {
	err       error
	reload    string
	reloadErr error
	reloads   atomic.Int32
}

func (s *source) Token(context.Context) (keywright.Secret, error) {
	return keywright.NewSecret(authToken), s.err
}

func (s *source) Reload(context.Context, keywright.Secret) (keywright.Secret, error) {
	s.reloads.Add(1)
	return keywright.NewSecret(s.reload), s.reloadErr
}

func TestServicesReloadOnce(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		s.do(func() { s.auth = "none that anybody has" })
		for reload, requests := range map[string]int{authToken: 1, newToken: 2} {
			s.do(func() { s.seen = nil })
			from := &source{reload: reload}
			k, err := s.sink(s.url, from, nil)
			require.NoError(t, err)
			_, err = k.Read(t.Context())
			requireClass(t, err, ErrRefused)
			assert.Len(t, s.requests(), requests)
			assert.EqualValues(t, 1, from.reloads.Load())
		}
	})
}

// TestServicesReloadFails: neither the source nor the replay need succeed.
func TestServicesReloadFails(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		s.do(func() { s.auth = "none that anybody has" })
		k, err := s.sink(s.url, &source{reloadErr: errors.New("broker said " + authToken)}, nil)
		require.NoError(t, err)
		_, err = k.Read(t.Context())
		requireClass(t, err, ErrTemporary)
		assert.Contains(t, err.Error(), "source of the authentication token failed")

		var requests atomic.Int32
		s.intercept(func(http.ResponseWriter, *http.Request) bool {
			if requests.Add(1) == 2 {
				panic(http.ErrAbortHandler)
			}
			return false
		})
		k, err = s.sink(s.url, &source{reload: newToken}, nil)
		require.NoError(t, err)
		_, err = k.Read(t.Context())
		requireClass(t, err, ErrTemporary)
		assert.EqualValues(t, 2, requests.Load())

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		k, err = s.sink(s.url, &source{err: errors.New("broker stopped")}, nil)
		require.NoError(t, err)
		_, err = k.Read(ctx)
		requireClass(t, err, context.Canceled)
	})
}

func TestServicesWithoutToken(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	eachService(t, func(t *testing.T, s *service) {
		for _, test := range []struct {
			source keywright.TokenSource
			class  error
		}{
			{keywright.FileToken(missing), ErrRefused},
			{keywright.StaticToken(keywright.Secret{}), ErrRefused},
			{keywright.StaticToken(keywright.NewSecret("token with spaces")), ErrRefused},
			{&source{err: errors.New("broker said " + authToken)}, ErrTemporary},
		} {
			k, err := s.sink(s.url, test.source, nil)
			require.NoError(t, err)
			for _, err := range allOps(t.Context(), k) {
				requireClass(t, err, test.class)
			}
		}
		assert.Empty(t, s.requests())
	})
}

// TestServicesLostAnswer: a write took effect, and nobody was told. Reading
// and writing again does no harm.
func TestServicesLostAnswer(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		s.store(oldToken)
		k := s.open(t)
		before, err := k.Read(t.Context())
		require.NoError(t, err)
		s.do(func() { s.lose = func(r *http.Request) bool { return r.Method != http.MethodGet } })
		requireClass(t, k.CompareAndWrite(t.Context(), before, newSecret), ErrTemporary)
		assert.Equal(t, newToken, s.held())
		assert.Equal(t, 1, s.writes(), "a write is not repeated unasked")
		s.do(func() { s.lose = nil })

		requireClass(t, k.CompareAndWrite(t.Context(), before, newSecret), ErrConflict)
		after, err := k.Read(t.Context())
		require.NoError(t, err)
		require.NoError(t, k.CompareAndWrite(t.Context(), after, newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))
		assert.Equal(t, newToken, s.held())
	})
}

// race has n writers who have all seen the same state, and returns their
// errors. The service serves no write before all have arrived.
func race(t *testing.T, s *service, n int) []error {
	t.Helper()
	var arrived sync.WaitGroup
	arrived.Add(n)
	s.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			arrived.Done()
			arrived.Wait()
		}
		return false
	})
	before, err := s.open(t).Read(t.Context())
	require.NoError(t, err)
	errs := make([]error, n)
	var done sync.WaitGroup
	for i := range n {
		k := s.open(t)
		done.Go(func() {
			errs[i] = k.CompareAndWrite(t.Context(), before, keywright.NewSecret(fmt.Sprint("writer-", i)))
		})
	}
	done.Wait()
	return errs
}

func TestServicesConcurrentWriters(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"vault", "kubernetes"} {
		for state, token := range map[string]string{"absent": "", "present": oldToken} {
			t.Run(name+" "+state, func(t *testing.T) {
				t.Parallel()
				s := services[name](t)
				if token != "" {
					s.store(token)
				}
				winner := -1
				for i, err := range race(t, s, 5) {
					if err == nil {
						require.Equal(t, -1, winner, "two writers won")
						winner = i
						continue
					}
					requireClass(t, err, ErrConflict)
				}
				require.NotEqual(t, -1, winner, "nobody won")
				assert.Equal(t, fmt.Sprint("writer-", winner), s.held())
			})
		}
	}
}

func TestServiceAddress(t *testing.T) {
	t.Parallel()
	for address, reason := range map[string]string{
		"":                              "is missing",
		"vault.example:8200":            "https://",
		"/v1":                           "https://",
		"ftp://vault.example":           "https://",
		"https:vault.example":           "missing",
		"https://":                      "missing",
		"https://vault.example:":        "missing",
		"https://:8200":                 "missing",
		"http://vault.example":          "plain http",
		"http://10.0.0.1":               "plain http",
		"http://127.0.0.1.example":      "plain http",
		"http://localhost.example":      "plain http",
		"https://me:pass@vault.example": "user info",
		"https://@vault.example":        "user info",
		"https://vault.example?":        "query",
		"https://vault.example?a=b":     "query",
		"https://vault.example#":        "fragment",
		"https://vault.example/a/../b":  `".."`,
		"https://vault.example/./b":     `"."`,
		"https://vault.example//b":      "empty segment",
		"https://vault.example/%2e%2e":  `"%"`,
		"https://vault.example/a\nb":    "cannot be parsed",
		"https://vault.example:port":    "cannot be parsed",
	} {
		if address == "" {
			continue // GitHub has a default
		}
		for name, start := range map[string]*service{"vault": newVaultService(), "kubernetes": newKubernetesService(), "github": newGitHubService(t)} {
			_, err := start.sink(address, keywright.StaticToken(keywright.NewSecret(authToken)), nil)
			var p *keywright.ParamError
			require.ErrorAs(t, err, &p, "%s: %q", name, address)
			require.ErrorIs(t, err, keywright.ErrInvalidURL)
			assert.Equal(t, "Address", p.Field)
			assert.Contains(t, p.Reason, reason, address)
			assert.NotContains(t, err.Error(), "pass@")
		}
	}
	for address, base := range map[string]string{
		"https://Vault.Example:8200/": "https://vault.example:8200",
		"https://ghe.example/api/v3/": "https://ghe.example/api/v3",
		"http://127.0.0.1:8200":       "http://127.0.0.1:8200",
		"http://127.9.9.9":            "http://127.9.9.9",
		"http://[::1]:8200":           "http://[::1]:8200",
		"http://localhost":            "http://localhost",
		"https://x.example/a b":       "https://x.example/a%20b",
	} {
		got, reason := baseAddress(address)
		assert.Equal(t, base, got)
		assert.Empty(t, reason)
	}
	_, reason := baseAddress("")
	assert.Equal(t, "is missing", reason)
}

func TestServiceWithoutSource(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, s *service) {
		_, err := s.sink(s.url, nil, nil)
		var p *keywright.ParamError
		require.ErrorAs(t, err, &p)
		assert.Equal(t, "Token", p.Field)
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	r := &rest{name: "test"}
	x := r.begin("read", keywright.NewSecret("zyxwvu"), keywright.NewSecret("zyxwvu-longer"), keywright.NewSecret("no"), keywright.NewSecret("?>?>~\"%"))
	for said, want := range map[string]string{
		"a\r\n\tb \x00 c": `"a b \x00 c"`,
		base64.StdEncoding.EncodeToString([]byte("zyxwvu")):           `"[REDACTED]"`,
		base64.RawStdEncoding.EncodeToString([]byte("?>?>~\"%")):      `"[REDACTED]"`,
		base64.URLEncoding.EncodeToString([]byte("?>?>~\"%")):         `"[REDACTED]=="`,
		url.QueryEscape("?>?>~\"%") + " " + strconv.Quote("?>?>~\"%"): `"[REDACTED] \"[REDACTED]\""`,
		"zyxwvu-longer zyxwvu no":                                     `"[REDACTED] [REDACTED] no"`,
		strings.Repeat("é", 101):                                      `"` + strings.Repeat(`\u00e9`, 100) + `"`,
		"x" + strings.Repeat("é", 101):                                `"x` + strings.Repeat(`\u00e9`, 99) + `"`,
		strings.Repeat("x", 199) + "zyxwvu":                           `"` + strings.Repeat("x", 199) + `["`,
		"billing-token-of-the-shop":                                   `"billing-token-of-the-shop"`,
		"0123456789-0123456789":                                       `"0123456789-0123456789"`,
		"k=(ghp_0123456789abcdefghij)":                                `"k=([REDACTED])"`,
		"ghp_0123456789abcdef":                                        `"[REDACTED]"`,
		"ghp_0123456789abcde":                                         `"ghp_0123456789abcde"`,
		"\xff\xfe":                                                    `"\xff\xfe"`,
		"":                                                            `""`,
	} {
		assert.Equal(t, want, x.clean(said))
	}
}
