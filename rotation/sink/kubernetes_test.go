package sink

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

// kubernetesStore is a namespace with at most one Secret.
type kubernetesStore struct {
	exists      bool
	version     int
	data        map[string]string // base64
	immutable   bool
	noNamespace bool
}

func (k *kubernetesStore) secret() string {
	data, err := json.Marshal(k.data)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"kind":"Secret","apiVersion":"v1","metadata":{"name":"billing","namespace":"shop",`+
		`"uid":"1","resourceVersion":"%d"},"data":%s,"type":"Opaque","immutable":%t}`, k.version, data, k.immutable)
}

func kubernetesStatus(w http.ResponseWriter, code int, reason, message string) {
	answerJSON(w, code, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,"code":%d}`,
		message, reason, code))
}

func newKubernetesService() *service {
	s, _ := newKubernetesServiceStore()
	return s
}

func newKubernetesServiceStore() (*service, *kubernetesStore) {
	const secrets = "/api/v1/namespaces/shop/secrets"
	store := &kubernetesStore{version: 100}
	s := &service{refusal: http.StatusUnauthorized}
	s.accepts = func(r *http.Request, token string) bool { return r.Header.Get("Authorization") == "Bearer "+token }
	type meta struct {
		Name            string `json:"name"`
		Namespace       string `json:"namespace"`
		ResourceVersion string `json:"resourceVersion"`
	}
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		assert.Empty(s.t, r.URL.RawQuery)
		switch r.Method + " " + r.URL.EscapedPath() {
		case "GET " + secrets + "/billing":
			if !store.exists {
				kubernetesStatus(w, 404, "NotFound", `secrets "billing" not found`)
				return
			}
			answerJSON(w, 200, store.secret())
		case "PATCH " + secrets + "/billing":
			assert.Equal(s.t, "application/merge-patch+json", r.Header.Get("Content-Type"))
			var patch struct {
				Metadata meta              `json:"metadata"`
				Data     map[string]string `json:"data"`
			}
			strictly(s.t, r, &patch)
			assert.NotEmpty(s.t, patch.Metadata.ResourceVersion, "without it there is no compare-and-set")
			assert.Len(s.t, patch.Data, 1)
			switch {
			case !store.exists:
				kubernetesStatus(w, 404, "NotFound", `secrets "billing" not found`)
			case patch.Metadata.ResourceVersion != strconv.Itoa(store.version):
				kubernetesStatus(w, 409, "Conflict", `Operation cannot be fulfilled on secrets "billing": the object has been modified; `+
					`please apply your changes to the latest version and try again`)
			case store.immutable:
				kubernetesStatus(w, 422, "Invalid", "Secret \"billing\" is invalid: data: Forbidden: field is immutable when `immutable` is set")
			default:
				maps.Copy(store.data, patch.Data)
				store.version += 7
				answerJSON(w, 200, store.secret())
			}
		case "POST " + secrets:
			assert.Equal(s.t, "application/json", r.Header.Get("Content-Type"))
			var created struct {
				APIVersion string            `json:"apiVersion"`
				Kind       string            `json:"kind"`
				Metadata   meta              `json:"metadata"`
				Type       string            `json:"type"`
				Data       map[string]string `json:"data"`
			}
			strictly(s.t, r, &created)
			assert.Equal(s.t, "v1 Secret Opaque", created.APIVersion+" "+created.Kind+" "+created.Type)
			assert.Equal(s.t, meta{Name: "billing", Namespace: "shop"}, created.Metadata)
			switch {
			case store.noNamespace:
				kubernetesStatus(w, 404, "NotFound", `namespaces "shop" not found`)
			case store.exists:
				kubernetesStatus(w, 409, "AlreadyExists", `secrets "billing" already exists`)
			default:
				store.exists, store.data = true, created.Data
				store.version += 7
				answerJSON(w, 201, store.secret())
			}
		default:
			s.t.Errorf("%s %s", r.Method, r.URL.EscapedPath())
		}
	}
	s.held = func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, err := base64.StdEncoding.DecodeString(store.data["token"])
		assert.NoError(s.t, err)
		return string(b)
	}
	s.store = func(token string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if store.data == nil {
			store.data = map[string]string{}
		}
		store.data["token"] = base64.StdEncoding.EncodeToString([]byte(token))
		store.exists = true
		store.version += 7
	}
	s.sink = func(address string, source keywright.TokenSource, hc *http.Client) (Sink, error) {
		return KubernetesSecret(KubernetesConfig{
			Address: address, Namespace: "shop", Name: "billing", Key: "token", Token: source, HTTPClient: hc,
		})
	}
	return s, store
}

func TestKubernetesDefaults(t *testing.T) {
	t.Parallel()
	cfg := KubernetesConfig{
		Address: "https://10.0.0.1:443", Namespace: "shop", Name: "billing", Key: "token",
		Token: keywright.StaticToken(keywright.NewSecret(authToken)),
	}
	k, err := KubernetesSecret(cfg)
	require.NoError(t, err)
	assert.Equal(t, "kubernetes https://10.0.0.1:443 shop/billing#token", k.Name())
	assert.Equal(t, 90*time.Second, k.Traits().Lag)
	assert.False(t, k.Traits().UntilRestart)

	restart := cfg
	restart.UntilRestart = true
	k, err = KubernetesSecret(restart)
	require.NoError(t, err)
	assert.True(t, k.Traits().UntilRestart)
	assert.Zero(t, k.Traits().Lag)

	for field, change := range map[string]func(*KubernetesConfig){
		"Namespace": func(c *KubernetesConfig) { c.Namespace = "" },
		"Name":      func(c *KubernetesConfig) { c.Name = "a/b" },
		"Key":       func(c *KubernetesConfig) { c.Key = ".." },
		"Lag":       func(c *KubernetesConfig) { c.Lag = -1 },
	} {
		bad := cfg
		change(&bad)
		_, err := KubernetesSecret(bad)
		var p *keywright.ParamError
		require.ErrorAs(t, err, &p)
		assert.Equal(t, field, p.Field)
	}
}

func TestKubernetesKeepsOtherKeys(t *testing.T) {
	t.Parallel()
	s, store := newKubernetesServiceStore()
	s.start(t)
	s.do(func() { store.exists, store.data = true, map[string]string{"ca.crt": "AAAA", "Token": "BBBB"} })
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Reading{Version: "100"}, now)
	require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
	now, err = k.Read(t.Context())
	require.NoError(t, err)
	require.NoError(t, k.CompareAndWrite(t.Context(), now, newSecret))
	assert.Equal(t, 1, s.writes(), "what is there need not be written")
	s.do(func() {
		assert.Equal(t, map[string]string{
			"ca.crt": "AAAA", "Token": "BBBB", "token": base64.StdEncoding.EncodeToString([]byte(newToken)),
		}, store.data)
	})
}

func TestKubernetesImmutable(t *testing.T) {
	t.Parallel()
	s, store := newKubernetesServiceStore()
	s.start(t)
	s.store(oldToken)
	s.do(func() { store.immutable = true })
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	err = k.CompareAndWrite(t.Context(), now, newSecret)
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), "immutable")
	assert.Zero(t, s.writes())

	// It may become immutable between the read and the write.
	s.do(func() { store.immutable = false })
	s.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		s.do(func() { store.immutable = r.Method == http.MethodPatch })
		return false
	})
	err = k.CompareAndWrite(t.Context(), now, newSecret)
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), "field is immutable")
	assert.Equal(t, oldToken, s.held())
}

func TestKubernetesDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	s, store := newKubernetesServiceStore()
	s.start(t)
	s.store(oldToken)
	k := s.open(t)
	now, err := k.Read(t.Context())
	require.NoError(t, err)
	s.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			s.do(func() { store.exists = false })
		}
		return false
	})
	requireClass(t, k.CompareAndWrite(t.Context(), now, newSecret), ErrConflict)
}

func TestKubernetesAnswers(t *testing.T) {
	t.Parallel()
	s, store := newKubernetesServiceStore()
	s.start(t)
	s.do(func() { store.noNamespace = true })
	err := s.open(t).CompareAndWrite(t.Context(), Reading{}, newSecret)
	requireClass(t, err, ErrRefused)
	assert.Contains(t, err.Error(), `there is no namespace "shop"; create it`)

	for name, test := range map[string]struct {
		status int
		body   string
		class  error
		says   string
	}{
		"rbac": {
			403, `{"kind":"Status","reason":"Forbidden","message":"secrets \"billing\" is forbidden"}`,
			ErrRefused, `get and patch on secrets in namespace "shop"`,
		},
		"not the API":         {404, `{"message":"not found"}`, ErrRefused, "not the API of Kubernetes"},
		"another page":        {404, "404 page not found", ErrTemporary, "not the JSON"},
		"another object":      {200, `{"kind":"ConfigMap","metadata":{"resourceVersion":"1"}}`, ErrRefused, "not the API of Kubernetes"},
		"no resource version": {200, `{"kind":"Secret","metadata":{}}`, ErrRefused, "not the API of Kubernetes"},
		"no base64":           {200, `{"kind":"Secret","metadata":{"resourceVersion":"1"},"data":{"token":"` + newToken[:10] + `*"}}`, ErrTemporary, "not base64"},
	} {
		s.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			answerJSON(w, test.status, test.body)
			return true
		})
		for _, err := range allOps(t.Context(), s.open(t)) {
			requireClass(t, err, test.class)
			assert.Contains(t, err.Error(), test.says, name)
		}
	}
}

func TestKubernetesInCluster(t *testing.T) {
	t.Parallel()
	if os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		_, err := InCluster("", "billing", "token")
		require.ErrorContains(t, err, "this is not a pod")
	}
	s := newKubernetesService()
	s.t, s.auth = t, authToken
	api := httptest.NewTLSServer(s)
	t.Cleanup(api.Close)
	host, port, _ := strings.Cut(api.Listener.Addr().String(), ":")
	env := map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
	getenv := func(name string) string { return env[name] }
	dir := t.TempDir()
	write := func(name string, b []byte) { require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600)) }

	_, err := inCluster(dir, func(string) string { return "" }, "", "billing", "token")
	require.ErrorContains(t, err, "this is not a pod")
	_, err = inCluster(dir, getenv, "", "billing", "token")
	require.ErrorIs(t, err, os.ErrNotExist)
	write("ca.crt", []byte("none"))
	_, err = inCluster(dir, getenv, "", "billing", "token")
	require.ErrorContains(t, err, "holds no certificate")
	write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))
	_, err = inCluster(dir, getenv, "", "billing", "token")
	require.ErrorIs(t, err, os.ErrNotExist)
	write("namespace", []byte("shop\n"))
	write("token", []byte(authToken+"\n"))

	cfg, err := inCluster(dir, getenv, "", "billing", "token")
	require.NoError(t, err)
	assert.Equal(t, "shop", cfg.Namespace)
	k, err := KubernetesSecret(cfg)
	require.NoError(t, err)
	require.NoError(t, k.CompareAndWrite(t.Context(), Reading{}, newSecret))
	require.NoError(t, k.Confirm(t.Context(), newSecret))
	assert.Equal(t, newToken, s.held())

	env["KUBERNETES_SERVICE_HOST"] = "fd00::1"
	cfg, err = inCluster(dir, getenv, "other", "billing", "token")
	require.NoError(t, err)
	assert.Equal(t, "https://[fd00::1]:"+port, cfg.Address)
	assert.Equal(t, "other", cfg.Namespace)
}
