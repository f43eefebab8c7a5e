package sink

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/nacl/box"

	"github.com/keywright/keywright"
)

// githubStore is a repository with at most one secret, and GitHub's key pair.
type githubStore struct {
	public, private *[32]byte
	keyID           int
	token           string
	updated         time.Time // zero: there is no secret
	noRepo          bool
}

func (g *githubStore) newKey(t *testing.T) {
	var err error
	g.public, g.private, err = box.GenerateKey(rand.Reader)
	assert.NoError(t, err)
	g.keyID++
}

// write stores token, a second after the write before.
func (g *githubStore) write(token string) {
	if g.updated.IsZero() {
		g.updated = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	g.token, g.updated = token, g.updated.Add(time.Second)
}

func newGitHubService(t *testing.T) *service {
	s, _ := newGitHubServiceStore(t, "")
	return s
}

func newGitHubServiceStore(t *testing.T, environment string) (*service, *githubStore) {
	store := &githubStore{}
	store.newKey(t)
	secrets := "/api/v3/repos/octo/shop/actions/secrets"
	if environment != "" {
		secrets = "/api/v3/repos/octo/shop/environments/eu%2Fprod/secrets"
	}
	s := &service{refusal: http.StatusUnauthorized}
	s.accepts = func(r *http.Request, token string) bool { return r.Header.Get("Authorization") == "Bearer "+token }
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(s.t, "application/vnd.github+json", r.Header.Get("Accept"))
		assert.Equal(s.t, "2022-11-28", r.Header.Get("X-GitHub-Api-Version"))
		assert.NotEmpty(s.t, r.Header.Get("User-Agent"))
		assert.Empty(s.t, r.URL.RawQuery)
		notFound := func() { answerJSON(w, 404, `{"message":"Not Found","status":"404"}`) }
		if store.noRepo {
			notFound()
			return
		}
		switch r.Method + " " + r.URL.EscapedPath() {
		case "GET " + secrets + "/public-key":
			answerJSON(w, 200, fmt.Sprintf(`{"key_id":"%d","key":%q}`, store.keyID, base64.StdEncoding.EncodeToString(store.public[:])))
		case "GET " + secrets + "/BILLING_TOKEN":
			if store.updated.IsZero() {
				notFound()
				return
			}
			answerJSON(w, 200, fmt.Sprintf(`{"name":"BILLING_TOKEN","created_at":"2026-01-01T00:00:00Z","updated_at":%q}`,
				store.updated.Format(time.RFC3339)))
		case "PUT " + secrets + "/BILLING_TOKEN":
			assert.Equal(s.t, "application/json", r.Header.Get("Content-Type"))
			var body struct {
				EncryptedValue string `json:"encrypted_value"`
				KeyID          string `json:"key_id"`
			}
			strictly(s.t, r, &body)
			if body.KeyID != fmt.Sprint(store.keyID) {
				answerJSON(w, 422, `{"message":"Bad request - key_id does not match"}`)
				return
			}
			sealed, err := base64.StdEncoding.DecodeString(body.EncryptedValue)
			assert.NoError(s.t, err)
			token, ok := box.OpenAnonymous(nil, sealed, store.public, store.private)
			assert.True(s.t, ok, "the box does not open")
			created := store.updated.IsZero()
			store.write(string(token))
			if created {
				answerJSON(w, 201, "{}")
				return
			}
			w.WriteHeader(http.StatusNoContent)
		default:
			s.t.Errorf("%s %s", r.Method, r.URL.EscapedPath())
			notFound()
		}
	}
	s.held = func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return store.token
	}
	s.store = func(token string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		store.write(token)
	}
	s.sink = func(address string, source keywright.TokenSource, hc *http.Client) (Sink, error) {
		if strings.HasPrefix(address, "http://127.") || strings.HasPrefix(address, "https://127.") {
			address += "/api/v3"
		}
		return GitHubActionsSecret(GitHubConfig{
			Address: address, Owner: "octo", Repo: "shop", Environment: environment, Name: "BILLING_TOKEN",
			Token: source, HTTPClient: hc,
		})
	}
	return s, store
}

func TestGitHubDefaults(t *testing.T) {
	t.Parallel()
	cfg := GitHubConfig{Owner: "octo", Repo: "shop", Name: "BILLING_TOKEN", Token: keywright.StaticToken(keywright.NewSecret(authToken))}
	k, err := GitHubActionsSecret(cfg)
	require.NoError(t, err)
	assert.Equal(t, "github https://api.github.com octo/shop#BILLING_TOKEN", k.Name())
	traits := k.Traits()
	assert.Equal(t, 6*time.Hour, traits.Lag)
	assert.False(t, traits.Readable)
	assert.Equal(t, GradeAcknowledged, traits.Grade)

	env := cfg
	env.Environment = "prod"
	k, err = GitHubActionsSecret(env)
	require.NoError(t, err)
	assert.Equal(t, "github https://api.github.com octo/shop prod#BILLING_TOKEN", k.Name())

	for _, test := range []struct {
		field  string
		change func(*GitHubConfig)
	}{
		{"Owner", func(c *GitHubConfig) { c.Owner = "" }},
		{"Repo", func(c *GitHubConfig) { c.Repo = "octo/shop" }},
		{"Environment", func(c *GitHubConfig) { c.Environment = ".." }},
		{"Name", func(c *GitHubConfig) { c.Name = "" }},
		{"Name", func(c *GitHubConfig) { c.Name = "public-key" }},
		{"Name", func(c *GitHubConfig) { c.Name = "github_TOKEN" }},
		{"Name", func(c *GitHubConfig) { c.Name = "1TOKEN" }},
		{"Lag", func(c *GitHubConfig) { c.Lag = -1 }},
	} {
		bad := cfg
		test.change(&bad)
		_, err := GitHubActionsSecret(bad)
		var p *keywright.ParamError
		require.ErrorAs(t, err, &p)
		assert.Equal(t, test.field, p.Field)
	}
}

func TestGitHubEnvironment(t *testing.T) {
	t.Parallel()
	s, _ := newGitHubServiceStore(t, "eu/prod")
	s.start(t)
	k := s.open(t)
	require.NoError(t, k.CompareAndWrite(t.Context(), Reading{}, newSecret))
	assert.Equal(t, newToken, s.held())
	require.NoError(t, k.Confirm(t.Context(), newSecret))
}

// TestGitHubKeyChanged: the key pair is replaced between the fetch of the key
// and the write, once, and then each time.
func TestGitHubKeyChanged(t *testing.T) {
	t.Parallel()
	s, store := newGitHubServiceStore(t, "")
	s.start(t)
	changes := 1
	s.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method == http.MethodPut && changes > 0 {
			changes--
			store.newKey(t)
		}
		return false
	})
	k := s.open(t)
	require.NoError(t, k.CompareAndWrite(t.Context(), Reading{}, newSecret))
	assert.Equal(t, newToken, s.held())
	assert.Equal(t, 2, s.writes())

	s.do(func() { changes = 1000 })
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	err = k.CompareAndWrite(t.Context(), now, keywright.NewSecret(oldToken))
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), "key_id does not match")
	assert.Equal(t, 4, s.writes())
	assert.Equal(t, newToken, s.held())
}

func TestGitHubRepositoryMissing(t *testing.T) {
	t.Parallel()
	s, store := newGitHubServiceStore(t, "")
	s.start(t)
	s.do(func() { store.noRepo = true })
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	assert.Empty(t, now.Version)
	err = k.CompareAndWrite(t.Context(), now, newSecret)
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), "no such repository")
	assert.Contains(t, err.Error(), `"Secrets" (write)`)
	assert.Zero(t, s.writes())
}

func TestGitHubLimits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		header map[string]string
		body   string
		class  error
		says   string
	}{
		"primary": {map[string]string{
			"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(time.Now().Add(time.Hour - 30*time.Second).Unix()),
		}, `{"message":"API rate limit exceeded"}`, ErrTemporary, "asks to wait 59m"},
		"secondary": {map[string]string{"Retry-After": "60", "X-RateLimit-Remaining": "4999"}, `{}`, ErrTemporary, "asks to wait 1m0s"},
		"secondary unmarked": {
			map[string]string{"X-RateLimit-Remaining": "4999"},
			`{"message":"You have exceeded a secondary rate limit. Please wait."}`, ErrTemporary, "secondary rate limit",
		},
		"permission": {
			map[string]string{"X-RateLimit-Remaining": "4999"},
			`{"message":"Resource not accessible by personal access token"}`, ErrRefused, `"Secrets" (write)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGitHubService(t).start(t)
			s.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				for k, v := range test.header {
					w.Header().Set(k, v)
				}
				answerJSON(w, 403, test.body)
				return true
			})
			from := &source{reload: newToken}
			k, err := s.sink(s.url, from, nil)
			require.NoError(t, err)
			_, err = k.Read(t.Context())
			requireClass(t, err, test.class)
			assert.Contains(t, err.Error(), test.says)
			assert.Equal(t, test.class == ErrRefused, from.reloads.Load() == 1, "a limit is no reason to change the token")
		})
	}
}

func TestGitHubBadKey(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{}`, `{"key_id":"1","key":"AAAA"}`, `{"key":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `"}`,
	} {
		s := newGitHubService(t).start(t)
		s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/public-key") {
				return false
			}
			answerJSON(w, 200, body)
			return true
		})
		err := s.open(t).CompareAndWrite(t.Context(), Reading{}, newSecret)
		requireClass(t, err, ErrRefused)
		assert.Contains(t, err.Error(), "no public key")
		assert.Zero(t, s.writes())
	}
}

// TestGitHubAnotherProcess: GitHub shows no values, so that a process which
// did not write the token cannot vouch for it.
func TestGitHubAnotherProcess(t *testing.T) {
	t.Parallel()
	s, store := newGitHubServiceStore(t, "")
	s.start(t)
	k := s.open(t)
	require.NoError(t, k.CompareAndWrite(t.Context(), Reading{}, newSecret))
	err := s.open(t).Confirm(t.Context(), newSecret)
	requireClass(t, err, ErrTemporary)
	assert.Contains(t, err.Error(), "must be written again")

	require.NoError(t, k.Confirm(t.Context(), newSecret))
	s.do(func() { store.updated = time.Time{} })
	err = k.Confirm(t.Context(), newSecret)
	requireClass(t, err, ErrConflict)
	assert.Contains(t, err.Error(), "deleted")
}

// TestGitHubFailsMidway: each request of a write may be the one that fails.
func TestGitHubFailsMidway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fails   int32 // which request, from 1
		status  int
		class   error
		says    string
		written bool
	}{
		"key refused":     {2, 403, ErrRefused, `"Secrets" (write)`, false},
		"key unavailable": {2, 503, ErrTemporary, "(503", false},
		"key odd":         {2, 400, ErrRefused, "GitHub refused", false},
		"key not JSON":    {2, 200, ErrTemporary, "not the JSON", false},
		"repository gone": {3, 404, ErrRefused, "no such repository", false},
		"write odd":       {3, 200, ErrRefused, "GitHub refused", false},
		"time unknown":    {4, 500, ErrTemporary, "(500", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGitHubService(t).start(t)
			var requests atomic.Int32
			s.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				if requests.Add(1) != test.fails {
					return false
				}
				answerJSON(w, test.status, newToken)
				return true
			})
			k := s.open(t)
			err := k.CompareAndWrite(t.Context(), Reading{}, newSecret)
			requireClass(t, err, test.class)
			assert.Contains(t, err.Error(), test.says)
			assert.Equal(t, test.written, s.held() == newToken)
			requireClass(t, k.Confirm(t.Context(), newSecret), ErrTemporary)

			now, err := k.Read(t.Context())
			require.NoError(t, err)
			require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
			require.NoError(t, k.Confirm(t.Context(), newSecret))
			s.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				answerJSON(w, 502, "")
				return true
			})
			requireClass(t, k.Confirm(t.Context(), newSecret), ErrTemporary)
		})
	}
}
