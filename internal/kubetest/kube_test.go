//go:build unix

package kubetest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

const (
	key      = "api.key"
	oldToken = "canary-old/+<\"&>é\u2028???~~~ 0123456789"
	newToken = "canary-new/+<\"&>é\u2028???~~~ 9876543210"
)

var (
	oldSecret = keywright.NewSecret(oldToken)
	newSecret = keywright.NewSecret(newToken)
)

// secret is what any reader of a Secret gets.
type secret struct {
	Type      string
	Immutable bool
	Data      map[string]string
	Metadata  struct {
		ResourceVersion     string
		Labels, Annotations map[string]string
	}
}

func (s *server) secret(t *testing.T, name string) (out secret) {
	t.Helper()
	s.must(t, http.MethodGet, core+"/secrets/"+name, "", &out)
	return out
}

func (s *server) config(name, token string) sink.KubernetesConfig {
	return sink.KubernetesConfig{
		Address: s.addr, Namespace: namespace, Name: name, Key: key,
		Token: keywright.StaticToken(keywright.NewSecret(token)), HTTPClient: s.client,
	}
}

func open(t *testing.T, cfg sink.KubernetesConfig) sink.Sink {
	t.Helper()
	k, err := sink.KubernetesSecret(cfg)
	require.NoError(t, err)
	return k
}

func read(t *testing.T, k sink.Sink) sink.Reading {
	t.Helper()
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	return now
}

func requireClass(t *testing.T, err, class error, says ...string) {
	t.Helper()
	require.ErrorIs(t, err, class)
	require.NotContains(t, err.Error(), "canary")
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
}

// meddler does something before the first request that would change a Secret.
type meddler struct {
	next   http.RoundTripper
	meddle func()
	once   sync.Once
}

func (m *meddler) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		m.once.Do(m.meddle)
	}
	return m.next.RoundTrip(req)
}

// TestKubernetes is one test, because an API server takes a while to start.
func TestKubernetes(t *testing.T) {
	apiserver, etcd := binary(t, "KEYWRIGHT_KUBE_APISERVER", "kube-apiserver"), binary(t, "KEYWRIGHT_ETCD", "etcd")
	if apiserver == "" || etcd == "" {
		return
	}
	s := start(t, apiserver, etcd)
	rotator := s.account(t, "rotator", "get", "patch", "create")

	t.Run("a secret's life", func(t *testing.T) {
		k := open(t, s.config("billing", rotator))
		absent := read(t, k)
		require.Equal(t, sink.Reading{}, absent)
		requireClass(t, k.Confirm(t.Context(), newSecret), sink.ErrConflict, "holds no token")

		require.NoError(t, k.CompareAndWrite(t.Context(), absent, oldSecret))
		first := read(t, k)
		require.Equal(t, oldToken, first.Token.Reveal())
		stored := s.secret(t, "billing")
		require.Equal(t, first.Version, stored.Metadata.ResourceVersion)
		require.Equal(t, "Opaque", stored.Type)
		require.Equal(t, map[string]string{key: base64.StdEncoding.EncodeToString([]byte(oldToken))}, stored.Data)

		require.NoError(t, k.CompareAndWrite(t.Context(), first, newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))
		requireClass(t, k.Confirm(t.Context(), oldSecret), sink.ErrConflict)
		second := read(t, k)
		require.Equal(t, newToken, second.Token.Reveal())
		require.NotEqual(t, first.Version, second.Version)

		for _, stale := range []sink.Reading{absent, first} {
			requireClass(t, k.CompareAndWrite(t.Context(), stale, oldSecret), sink.ErrConflict)
		}
		require.NoError(t, k.CompareAndWrite(t.Context(), second, newSecret))
		require.Equal(t, second.Version, read(t, k).Version, "neither was written, nor what is there again")

		// Gone, and as it was before the first write.
		s.must(t, http.MethodDelete, core+"/secrets/billing", "", nil)
		requireClass(t, k.CompareAndWrite(t.Context(), second, oldSecret), sink.ErrConflict)
		require.Equal(t, absent, read(t, k))
		require.NoError(t, k.CompareAndWrite(t.Context(), absent, newSecret))
		require.NotEqual(t, second.Version, read(t, k).Version, "versions never return")
	})

	t.Run("changed between the sink's read and its write", func(t *testing.T) {
		create := func(name, token string) func() {
			return func() {
				s.must(t, http.MethodPost, core+"/secrets", fmt.Sprintf(`{"metadata":{"name":%q},"stringData":{%q:%q}}`, name, key, token), nil)
			}
		}
		patch := func(name, body string) func() {
			return func() { s.must(t, http.MethodPatch, core+"/secrets/"+name, body, nil) }
		}
		remove := func(name string) func() {
			return func() { s.must(t, http.MethodDelete, core+"/secrets/"+name, "", nil) }
		}
		for name, test := range map[string]struct {
			before, meddle func()
			says           []string
		}{
			"created":   {func() {}, create("created", "theirs"), []string{"changed the Secret", "409", "already exists"}},
			"patched":   {create("patched", "ours"), patch("patched", `{"stringData":{"`+key+`":"theirs"}}`), []string{"changed the Secret", "409", "has been modified"}},
			"labelled":  {create("labelled", "ours"), patch("labelled", `{"metadata":{"labels":{"a":"b"}}}`), []string{"changed the Secret", "409", "has been modified"}},
			"immutable": {create("immutable", "ours"), patch("immutable", `{"immutable":true}`), []string{"changed the Secret", "409", "has been modified"}},
			"deleted":   {create("deleted", "ours"), remove("deleted"), []string{"deleted the Secret", "404", "not found"}},
			"replaced": {
				create("replaced", "ours"), func() { remove("replaced")(); create("replaced", "ours")() },
				[]string{"changed the Secret", "409", "has been modified"},
			},
		} {
			t.Run(name, func(t *testing.T) {
				test.before()
				cfg := s.config(name, rotator)
				cfg.HTTPClient = &http.Client{Transport: &meddler{next: s.client.Transport, meddle: test.meddle}}
				k := open(t, cfg)
				requireClass(t, k.CompareAndWrite(t.Context(), read(t, k), newSecret), sink.ErrConflict, test.says...)
				requireClass(t, k.Confirm(t.Context(), newSecret), sink.ErrConflict)
			})
		}
	})

	t.Run("the rest of a Secret is kept", func(t *testing.T) {
		s.must(t, http.MethodPost, core+"/secrets", `{"metadata":{"name":"shared","labels":{"team":"x"},"annotations":{"note":"<&>"}},
			"type":"example.com/kind","data":{"API.KEY":"b3RoZXI=","binary":"AP/+gA==","empty":""}}`, nil)
		before := s.secret(t, "shared")
		k := open(t, s.config("shared", rotator))
		now := read(t, k)
		require.Equal(t, sink.Reading{Version: before.Metadata.ResourceVersion}, now)
		require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
		after := s.secret(t, "shared")
		before.Data[key] = base64.StdEncoding.EncodeToString([]byte(newToken))
		before.Metadata.ResourceVersion = after.Metadata.ResourceVersion
		require.Equal(t, before, after)
	})

	t.Run("a Secret without data", func(t *testing.T) {
		s.must(t, http.MethodPost, core+"/secrets", `{"metadata":{"name":"empty"}}`, nil)
		k := open(t, s.config("empty", rotator))
		require.NoError(t, k.CompareAndWrite(t.Context(), read(t, k), newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))
	})

	t.Run("immutable", func(t *testing.T) {
		s.must(t, http.MethodPost, core+"/secrets", `{"metadata":{"name":"fixed"},"immutable":true,"stringData":{"`+key+`":"old"}}`, nil)
		k := open(t, s.config("fixed", rotator))
		now := read(t, k)
		requireClass(t, k.CompareAndWrite(t.Context(), now, newSecret), sink.ErrRefused, "the Secret is immutable; create another")
		require.NoError(t, k.CompareAndWrite(t.Context(), now, keywright.NewSecret("old")), "that is there")
		require.Equal(t, now.Version, read(t, k).Version)
	})

	t.Run("one of many writers wins", func(t *testing.T) {
		const writers = 8
		k := open(t, s.config("contended", rotator))
		for round := range 4 { // the first creates the Secret
			before := read(t, k)
			errs := make([]error, writers)
			value := func(writer int) string { return fmt.Sprintf("round-%d-writer-%d", round, writer) }
			var done sync.WaitGroup
			for i := range writers {
				k := open(t, s.config("contended", rotator))
				done.Go(func() { errs[i] = k.CompareAndWrite(t.Context(), before, keywright.NewSecret(value(i))) })
			}
			done.Wait()
			winner := -1
			for i, err := range errs {
				if err == nil {
					require.Equal(t, -1, winner, "two writers won")
					winner = i
					continue
				}
				requireClass(t, err, sink.ErrConflict)
			}
			require.NotEqual(t, -1, winner)
			require.Equal(t, value(winner), read(t, k).Token.Reveal())
		}
	})

	t.Run("permissions", func(t *testing.T) {
		const needs = `get and patch on secrets in namespace "shop", and create if the Secret does not exist`
		s.must(t, http.MethodPost, core+"/secrets", `{"metadata":{"name":"permitted"}}`, nil)
		k := open(t, s.config("permitted", s.account(t, "stranger", "watch"))) // a role has at least one verb
		_, err := k.Read(t.Context())
		requireClass(t, err, sink.ErrRefused, needs, "403", "cannot get resource")
		requireClass(t, k.Confirm(t.Context(), newSecret), sink.ErrRefused, needs)
		requireClass(t, k.CompareAndWrite(t.Context(), sink.Reading{}, newSecret), sink.ErrRefused, needs)

		k = open(t, s.config("permitted", s.account(t, "reader", "get")))
		requireClass(t, k.CompareAndWrite(t.Context(), read(t, k), newSecret), sink.ErrRefused, needs, "cannot patch resource")

		keeper := s.account(t, "keeper", "get", "patch")
		k = open(t, s.config("permitted", keeper))
		require.NoError(t, k.CompareAndWrite(t.Context(), read(t, k), newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))
		k = open(t, s.config("absent", keeper))
		requireClass(t, k.CompareAndWrite(t.Context(), read(t, k), newSecret), sink.ErrRefused, needs, "cannot create resource")
	})

	t.Run("a token that is not accepted, and its file renewed", func(t *testing.T) {
		cfg := s.config("renewed", "canary-unknown-0123456789")
		_, err := open(t, cfg).Read(t.Context())
		requireClass(t, err, sink.ErrRefused, "token is not accepted", "401")

		file := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(file, []byte(rotator[:len(rotator)-8]+"\n"), 0o600))
		cfg.Token = keywright.FileToken(file)
		k := open(t, cfg)
		_, err = k.Read(t.Context())
		requireClass(t, err, sink.ErrRefused, "token is not accepted")
		require.NotContains(t, err.Error(), strings.Split(rotator, ".")[1])
		require.NoError(t, os.WriteFile(file, []byte(rotator+"\n"), 0o600))
		require.NoError(t, k.CompareAndWrite(t.Context(), read(t, k), newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))
	})

	t.Run("what cannot be", func(t *testing.T) {
		for says, change := range map[string]func(*sink.KubernetesConfig){
			`there is no namespace "nowhere"; create it`: func(c *sink.KubernetesConfig) { c.Namespace = "nowhere" },
			"takes the Secret for invalid (422":          func(c *sink.KubernetesConfig) { c.Key = "api key" },
		} {
			cfg := s.config("impossible", adminToken)
			change(&cfg)
			requireClass(t, open(t, cfg).CompareAndWrite(t.Context(), sink.Reading{}, newSecret), sink.ErrRefused, says)
		}
	})

	t.Run("a certificate that is not trusted", func(t *testing.T) {
		cfg := s.config("billing", rotator)
		cfg.HTTPClient = nil
		_, err := open(t, cfg).Read(t.Context())
		requireClass(t, err, sink.ErrRefused, "certificate is not trusted")
	})
}
