// Package vaulttest holds a test of the Vault sink against a real Vault, which
// runs within the test. It is a module of its own, so that nobody who uses
// keywright downloads Vault.
package vaulttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/vault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

const (
	oldToken = "canary-old/+<\"&>0123456789"
	newToken = "canary-new/+<\"&>9876543210"
)

var newSecret = keywright.NewSecret(newToken)

// server is a Vault with KV version 1 at secret/, and version 2 at team/kv/.
type server struct {
	addr string
	root string
}

func start(t *testing.T) *server {
	t.Helper()
	core, _, root := vault.TestCoreUnsealedWithConfig(t, &vault.CoreConfig{
		LogicalBackends: map[string]logical.Factory{"kv": kv.Factory},
	})
	listener, addr := vaulthttp.TestServer(t, core)
	t.Cleanup(func() {
		assert.NoError(t, listener.Close())
		assert.NoError(t, core.ShutdownWait())
	})
	s := &server{addr, root}
	s.must(t, http.MethodPost, "sys/mounts/team/kv", `{"type":"kv","options":{"version":"2"}}`)
	return s
}

// must makes a request as root, in the way of other programs, and returns the
// answer's body.
func (s *server) must(t *testing.T, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.addr+"/v1/"+path, bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	req.Header.Set("X-Vault-Token", s.root)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Less(t, resp.StatusCode, 300, "%s %s: %s", method, path, out)
	return out
}

// data returns the current version's fields, as any reader gets them.
func (s *server) data(t *testing.T, path string) map[string]json.RawMessage {
	t.Helper()
	var out struct {
		Data struct {
			Data map[string]json.RawMessage `json:"data"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal(s.must(t, http.MethodGet, "team/kv/data/"+path, ""), &out))
	return out.Data.Data
}

// token makes a token with a policy.
func (s *server) token(t *testing.T, policy string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"policy": policy})
	require.NoError(t, err)
	s.must(t, http.MethodPut, "sys/policies/acl/keywright", string(body))
	var out struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	require.NoError(t, json.Unmarshal(s.must(t, http.MethodPost, "auth/token/create", `{"policies":["keywright"]}`), &out))
	require.NotEmpty(t, out.Auth.ClientToken)
	return out.Auth.ClientToken
}

func (s *server) sink(t *testing.T, mount, path string, source keywright.TokenSource) sink.Sink {
	t.Helper()
	k, err := sink.VaultKV2(sink.VaultConfig{Address: s.addr, Mount: mount, Path: path, Field: "api key", Token: source})
	require.NoError(t, err)
	return k
}

func requireClass(t *testing.T, err, class error) {
	t.Helper()
	require.ErrorIs(t, err, class)
	require.NotContains(t, err.Error(), "canary")
}

// TestVault is one test, because a Vault takes a while to start.
func TestVault(t *testing.T) {
	s := start(t)
	asRoot := keywright.StaticToken(keywright.NewSecret(s.root))

	t.Run("a secret's life", func(t *testing.T) {
		k := s.sink(t, "team/kv", "apps/bill ing", asRoot)
		absent, err := k.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, sink.Reading{}, absent)
		requireClass(t, k.Confirm(t.Context(), newSecret), sink.ErrConflict)

		require.NoError(t, k.CompareAndWrite(t.Context(), absent, keywright.NewSecret(oldToken)))
		first, err := k.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "v1", first.Version)
		require.Equal(t, oldToken, first.Token.Reveal())
		require.NoError(t, k.CompareAndWrite(t.Context(), first, newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))

		requireClass(t, k.CompareAndWrite(t.Context(), absent, keywright.NewSecret("another")), sink.ErrConflict)
		requireClass(t, k.CompareAndWrite(t.Context(), first, keywright.NewSecret("another")), sink.ErrConflict)
		second, err := k.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "v2", second.Version)
		require.Equal(t, newToken, second.Token.Reveal())

		// A version that was deleted or destroyed still counts.
		for _, gone := range []struct{ method, path string }{
			{http.MethodDelete, "team/kv/data/apps/bill%20ing"},
			{http.MethodPut, "team/kv/destroy/apps/bill%20ing"},
		} {
			now, err := k.Read(t.Context())
			require.NoError(t, err)
			s.must(t, gone.method, gone.path, `{"versions":[`+now.Version[1:]+`]}`)
			empty, err := k.Read(t.Context())
			require.NoError(t, err)
			require.Equal(t, sink.Reading{Version: now.Version}, empty)
			requireClass(t, k.CompareAndWrite(t.Context(), absent, newSecret), sink.ErrConflict)
			require.NoError(t, k.CompareAndWrite(t.Context(), empty, newSecret))
			require.NoError(t, k.Confirm(t.Context(), newSecret))
		}

		// All history is gone, and the secret is as it was before the first write.
		s.must(t, http.MethodDelete, "team/kv/metadata/apps/bill%20ing", "")
		now, err := k.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, sink.Reading{}, now)
		require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
	})

	t.Run("other fields are kept", func(t *testing.T) {
		s.must(t, http.MethodPost, "team/kv/data/shared", `{"data":{"api key":"old","html":"<a href='x'>&\u2028",
			"number":12345678901234567890,"nested":{"b":[1,{"z":1.5}],"a":true},"none":null,"API KEY":"other case"}}`)
		before := s.data(t, "shared")
		k := s.sink(t, "team/kv", "shared", asRoot)
		now, err := k.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "old", now.Token.Reveal())
		require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
		after := s.data(t, "shared")
		require.Len(t, after, 6)
		for name, raw := range before {
			if name != "api key" {
				require.Equal(t, string(raw), string(after[name]), name)
			}
		}
	})

	t.Run("one of many writers wins", func(t *testing.T) {
		const writers = 8
		path := "contended"
		before, err := s.sink(t, "team/kv", path, asRoot).Read(t.Context())
		require.NoError(t, err)
		errs := make([]error, writers)
		var done sync.WaitGroup
		for i := range writers {
			k := s.sink(t, "team/kv", path, asRoot)
			done.Go(func() {
				errs[i] = k.CompareAndWrite(t.Context(), before, keywright.NewSecret(fmt.Sprint("writer-", i)))
			})
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
		now, err := s.sink(t, "team/kv", path, asRoot).Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "v1", now.Version)
		require.Equal(t, fmt.Sprint("writer-", winner), now.Token.Reveal())
	})

	t.Run("check-and-set is required", func(t *testing.T) {
		s.must(t, http.MethodPost, "team/kv/metadata/strict", `{"cas_required":true}`)
		k := s.sink(t, "team/kv", "strict", asRoot)
		now, err := k.Read(t.Context())
		require.NoError(t, err)
		require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
		require.NoError(t, k.Confirm(t.Context(), newSecret))
	})

	t.Run("the permissions that an error names suffice", func(t *testing.T) {
		token := s.token(t, `path "team/kv/data/permitted" { capabilities = ["create", "update", "read"] }`)
		source := keywright.StaticToken(keywright.NewSecret(token))
		k := s.sink(t, "team/kv", "permitted", source)
		for _, next := range []string{oldToken, newToken} {
			now, err := k.Read(t.Context())
			require.NoError(t, err)
			require.NoError(t, k.CompareAndWrite(t.Context(), now, keywright.NewSecret(next)))
		}
		_, err := s.sink(t, "team/kv", "forbidden", source).Read(t.Context())
		requireClass(t, err, sink.ErrRefused)
		require.ErrorContains(t, err, `create, update and read on "team/kv/data/forbidden"`)
		require.ErrorContains(t, err, "permission denied")
	})

	t.Run("a token is revoked and its file renewed", func(t *testing.T) {
		const policy = `path "team/kv/data/renewed" { capabilities = ["create", "update", "read"] }`
		first, second := s.token(t, policy), s.token(t, policy)
		file := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(file, []byte(first+"\n"), 0o600))
		renewing := s.sink(t, "team/kv", "renewed", keywright.FileToken(file))
		fixed := s.sink(t, "team/kv", "renewed", keywright.StaticToken(keywright.NewSecret(first)))
		now, err := renewing.Read(t.Context())
		require.NoError(t, err)

		s.must(t, http.MethodPost, "auth/token/revoke", `{"token":"`+first+`"}`)
		requireClass(t, fixed.CompareAndWrite(t.Context(), now, newSecret), sink.ErrRefused)
		require.NoError(t, os.WriteFile(file, []byte(second+"\n"), 0o600))
		require.NoError(t, renewing.CompareAndWrite(t.Context(), now, newSecret))
		require.NoError(t, renewing.Confirm(t.Context(), newSecret))
	})

	t.Run("no engine", func(t *testing.T) {
		k := s.sink(t, "nowhere", "x", asRoot)
		_, err := k.Read(t.Context())
		requireClass(t, err, sink.ErrRefused)
		require.ErrorContains(t, err, "enable KV version 2")
	})

	t.Run("KV version 1", func(t *testing.T) {
		k := s.sink(t, "secret", "x", asRoot)
		err := k.CompareAndWrite(t.Context(), sink.Reading{}, newSecret)
		requireClass(t, err, sink.ErrRefused)
		require.ErrorContains(t, err, "not KV version 2")
		_, err = k.Read(t.Context())
		requireClass(t, err, sink.ErrRefused)
	})
}
