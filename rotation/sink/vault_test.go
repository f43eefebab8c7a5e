package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

const vaultPath = "/v1/kv/team/data/apps/bill%20ing"

// vaultStore is a KV version 2 engine with one secret.
type vaultStore struct {
	data    []map[string]json.RawMessage // by version, from 1
	deleted bool                         // the current version
}

func (v *vaultStore) write(data map[string]json.RawMessage) {
	v.data, v.deleted = append(v.data, data), false
}

func newVaultService() *service {
	s, _ := newVaultServiceStore()
	return s
}

func newVaultServiceStore() (*service, *vaultStore) {
	store := &vaultStore{}
	s := &service{refusal: http.StatusForbidden}
	s.accepts = func(r *http.Request, token string) bool { return r.Header.Get("X-Vault-Token") == token }
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(s.t, vaultPath, r.URL.EscapedPath())
		assert.Equal(s.t, "true", r.Header.Get("X-Vault-Request"))
		assert.Equal(s.t, "ns1/", r.Header.Get("X-Vault-Namespace"))
		assert.Empty(s.t, r.Header.Get("Authorization"))
		assert.Empty(s.t, r.URL.RawQuery)
		n := len(store.data)
		switch r.Method {
		case http.MethodGet:
			switch {
			case n == 0:
				answerJSON(w, 404, `{"errors":[]}`)
			case store.deleted:
				answerJSON(w, 404, fmt.Sprintf(`{"request_id":"1","data":{"data":null,"metadata":{"version":%d,"destroyed":true}}}`, n))
			default:
				data, err := exactJSON(store.data[n-1])
				assert.NoError(s.t, err)
				answerJSON(w, 200, fmt.Sprintf(`{"request_id":"1","data":{"data":%s,"metadata":{"version":%d}},"warnings":null}`, data, n))
			}
		case http.MethodPost:
			assert.Equal(s.t, "application/json", r.Header.Get("Content-Type"))
			var body struct {
				Data    map[string]json.RawMessage `json:"data"`
				Options struct {
					CAS *int `json:"cas"`
				} `json:"options"`
			}
			strictly(s.t, r, &body)
			if !assert.NotNil(s.t, body.Options.CAS) || *body.Options.CAS != n {
				answerJSON(w, 400, `{"errors":["check-and-set parameter did not match the current version"]}`)
				return
			}
			store.write(body.Data)
			answerJSON(w, 200, fmt.Sprintf(`{"data":{"version":%d}}`, n+1))
		default:
			s.t.Errorf("method %s", r.Method)
		}
	}
	s.held = func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(store.data) == 0 || store.deleted {
			return ""
		}
		var token string
		assert.NoError(s.t, json.Unmarshal(store.data[len(store.data)-1]["api key"], &token))
		return token
	}
	s.store = func(token string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		raw, err := exactJSON(token)
		assert.NoError(s.t, err)
		store.write(map[string]json.RawMessage{"api key": raw})
	}
	s.sink = func(address string, source keywright.TokenSource, hc *http.Client) (Sink, error) {
		return VaultKV2(VaultConfig{
			Address: address, Mount: "kv/team", Path: "apps/bill ing", Field: "api key", Namespace: "ns1/",
			Token: source, HTTPClient: hc,
		})
	}
	return s, store
}

func TestVaultDefaults(t *testing.T) {
	t.Parallel()
	auth := keywright.StaticToken(keywright.NewSecret(authToken))
	k, err := VaultKV2(VaultConfig{Address: "https://vault.example", Path: "a/b", Token: auth})
	require.NoError(t, err)
	assert.Equal(t, "vault https://vault.example secret/a/b#token", k.Name())
	assert.Equal(t, 5*time.Minute, k.Traits().Lag)
	assert.Equal(t, GradeReadBack, k.Traits().Grade)

	k, err = VaultKV2(VaultConfig{Address: "https://vault.example", Path: "a/b", Token: auth, Lag: time.Second, Namespace: "n"})
	require.NoError(t, err)
	assert.Equal(t, "vault https://vault.example secret/a/b#token in n", k.Name())
	assert.Equal(t, time.Second, k.Traits().Lag)

	for field, cfg := range map[string]VaultConfig{
		"Path":      {},
		"Path ":     {Path: "/a"},
		"Path  ":    {Path: "a/"},
		"Path   ":   {Path: "a/../b"},
		"Path    ":  {Path: "."},
		"Path     ": {Path: "a\nb"},
		"Mount":     {Path: "a", Mount: "../sys"},
		"Namespace": {Path: "a", Namespace: "a\nb"},
		"Field":     {Path: "a", Field: "\xff"},
		"Lag":       {Path: "a", Lag: -1},
	} {
		cfg.Address, cfg.Token = "https://vault.example", auth
		_, err := VaultKV2(cfg)
		var p *keywright.ParamError
		require.ErrorAs(t, err, &p, field)
		assert.Equal(t, strings.TrimSpace(field), p.Field)
	}
}

func TestVaultKeepsOtherFields(t *testing.T) {
	t.Parallel()
	s, store := newVaultServiceStore()
	s.start(t)
	others := map[string]string{
		"number": "12345678901234567890.1234567890", "exponent": "1E400", "html": `"<a href='x'>&"`, "null": "null",
		"nested": `{"b":[1,{"z":1.0,"a":"\ud83d\ude00"}],"a":true}`, "API KEY": `"other case"`,
	}
	data := map[string]json.RawMessage{"api key": json.RawMessage(`"` + "old-token" + `"`)}
	for name, raw := range others {
		data[name] = json.RawMessage(raw)
	}
	s.do(func() { store.write(data) })
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "v1", now.Version)
	assert.Equal(t, "old-token", now.Token.Reveal())
	require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
	var written map[string]json.RawMessage
	s.do(func() {
		require.Len(t, store.data, 2)
		written = store.data[1]
	})
	assert.Len(t, written, len(others)+1)
	for name, raw := range others {
		assert.Equal(t, raw, string(written[name]), name)
	}
	assert.Equal(t, newToken, s.held())
}

func TestVaultDeletedVersion(t *testing.T) {
	t.Parallel()
	s, store := newVaultServiceStore()
	s.start(t)
	s.store(oldToken)
	s.store(oldToken)
	s.do(func() { store.deleted = true })
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Reading{Version: "v2"}, now)
	requireClass(t, k.Confirm(t.Context(), keywright.NewSecret(oldToken)), ErrConflict)
	requireClass(t, k.CompareAndWrite(t.Context(), Reading{}, newSecret), ErrConflict)
	require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
	assert.Equal(t, newToken, s.held())
	s.do(func() { assert.Len(t, store.data, 3) })
}

// TestVaultSameVersion: a secret whose history was wiped and begun anew has
// version 1 again.
func TestVaultSameVersion(t *testing.T) {
	t.Parallel()
	s, store := newVaultServiceStore()
	s.start(t)
	s.store(oldToken)
	k := s.open(t)
	before, err := k.Read(t.Context())
	require.NoError(t, err)
	s.do(func() { store.data = nil })
	s.store("somebody-elses-token")
	requireClass(t, k.CompareAndWrite(t.Context(), before, newSecret), ErrConflict)
	assert.Equal(t, "somebody-elses-token", s.held())
}

func TestVaultUnchangedTokenIsNotWritten(t *testing.T) {
	t.Parallel()
	s, store := newVaultServiceStore()
	s.start(t)
	s.store(newToken)
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
	s.do(func() { assert.Len(t, store.data, 1) })
}

func TestVaultAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		body   string
		class  error
		says   string
	}{
		"no engine":        {404, `{"errors":["no handler for route \"kv/team/data/x\". route entry not found."]}`, ErrRefused, "enable KV version 2"},
		"not Vault":        {404, `{"message":"page not found"}`, ErrRefused, "enable KV version 2"},
		"KV version 1":     {200, `{"data":{"api key":"` + authToken + `"}}`, ErrRefused, "is not KV version 2"},
		"KV 1 within":      {200, `{"data":{"data":{"api key":"x"},"options":{"cas":0}}}`, ErrRefused, "is not KV version 2"},
		"upgrading":        {400, `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`, ErrTemporary, "not ready"},
		"replica":          {412, `{"errors":["required index state not present"]}`, ErrTemporary, "not ready"},
		"sealed":           {503, `{"errors":["Vault is sealed"]}`, ErrTemporary, "Vault is sealed"},
		"permission":       {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, ErrRefused, `create, update and read on "kv/team/data/apps/bill ing"`},
		"field is object":  {200, `{"data":{"data":{"api key":{"a":1}},"metadata":{"version":1}}}`, ErrRefused, "not a string"},
		"field is number":  {200, `{"data":{"data":{"api key":12},"metadata":{"version":1}}}`, ErrRefused, "not a string"},
		"version negative": {200, `{"data":{"data":{},"metadata":{"version":-1}}}`, ErrTemporary, "not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newVaultService().start(t)
			s.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				answerJSON(w, test.status, test.body)
				return true
			})
			for _, err := range allOps(t.Context(), s.open(t)) {
				requireClass(t, err, test.class)
				assert.Contains(t, err.Error(), test.says)
			}
			assert.Zero(t, s.writes())
		})
	}
}

// TestVaultVersion1TakesAnything: KV version 1 looks empty, and stores what it
// is sent as it is, with 204.
func TestVaultVersion1TakesAnything(t *testing.T) {
	t.Parallel()
	s := newVaultService().start(t)
	s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		answerJSON(w, 404, `{"errors":[]}`)
		return true
	})
	err := s.open(t).CompareAndWrite(t.Context(), Reading{}, newSecret)
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), "not KV version 2")
}

// TestVaultOtherFieldsAreSecretToo: they are sent back, and may be echoed.
func TestVaultOtherFieldsAreSecretToo(t *testing.T) {
	t.Parallel()
	s, store := newVaultServiceStore()
	s.start(t)
	s.do(func() { store.write(map[string]json.RawMessage{"password": json.RawMessage(`"hunter2-hunter2"`)}) })
	s.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		answerJSON(w, 400, `{"errors":["cannot store hunter2-hunter2"]}`)
		return true
	})
	err := s.open(t).CompareAndWrite(t.Context(), Reading{Version: "v1"}, newSecret)
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), "cannot store [REDACTED]")
	assert.NotContains(t, err.Error(), "hunter2")
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzVaultFieldReplacement writes a token into any secret that Vault could
// return: either nothing is sent, or the token is in its field and everything
// else is as it was.
func FuzzVaultFieldReplacement(f *testing.F) {
	f.Add([]byte(`{"token":"old","other":1e400,"n":12345678901234567890}`), "token", newToken)
	f.Add([]byte(`{"a":{"token":"x"},"b":[null,true,"\u003c"]}`), "a", "t")
	f.Add([]byte(`null`), "token", "t")
	f.Add([]byte(`{"Token":"x","\ud800":"\u0000"}`), "token", `"\`)
	f.Add([]byte(`{}`), "token", "not UTF-8: \xff")
	f.Add([]byte(`{"k":"a","k":"b"}`), "k", "c")
	f.Fuzz(func(t *testing.T, secret []byte, field, token string) {
		if field == "" || !utf8.ValidString(field) || token == "" {
			return
		}
		var sent []byte
		hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			answer := []byte(`{"data":{"version":8}}`)
			if r.Method == http.MethodGet {
				answer = fmt.Appendf(nil, `{"data":{"data":%s,"metadata":{"version":7}}}`, secret)
			} else {
				var err error
				sent, err = io.ReadAll(r.Body)
				assert.NoError(t, err)
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(answer))}, nil
		})}
		k, err := VaultKV2(VaultConfig{
			Address: "https://vault.example", Path: "p", Field: field, HTTPClient: hc,
			Token: keywright.StaticToken(keywright.NewSecret(authToken)),
		})
		require.NoError(t, err)
		now, err := k.Read(t.Context())
		if err != nil || now.Version != "v7" {
			return
		}
		err = k.CompareAndWrite(t.Context(), now, keywright.NewSecret(token))
		if now.Token.Reveal() == token {
			require.NoError(t, err)
			require.Nil(t, sent)
			return
		}
		if !utf8.ValidString(token) {
			requireClass(t, err, ErrRefused)
			require.Nil(t, sent)
			return
		}
		require.NoError(t, err)
		var body struct {
			Data    map[string]json.RawMessage `json:"data"`
			Options map[string]int             `json:"options"`
		}
		require.NoError(t, json.Unmarshal(sent, &body))
		require.Equal(t, map[string]int{"cas": 7}, body.Options)
		var before struct {
			Data struct {
				Data map[string]json.RawMessage `json:"data"`
			} `json:"data"`
		}
		require.NoError(t, json.Unmarshal(fmt.Appendf(nil, `{"data":{"data":%s,"metadata":{"version":7}}}`, secret), &before))
		for name, raw := range before.Data.Data {
			if name == field {
				continue
			}
			var compact bytes.Buffer
			require.NoError(t, json.Compact(&compact, raw))
			require.Equal(t, compact.String(), string(body.Data[name]), name)
			delete(body.Data, name)
		}
		require.Len(t, body.Data, 1)
		var got string
		require.NoError(t, json.Unmarshal(body.Data[field], &got))
		require.Equal(t, token, got)
	})
}
