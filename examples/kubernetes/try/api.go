//go:build linux

package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// apiServer is as much of an API server as a Secret needs: it knows one service
// account, whom the Role lets do what it says, and nothing else.
type apiServer struct {
	server    *httptest.Server
	namespace string
	account   string // token of the service account
	role      role

	mu      sync.Mutex
	secrets map[string]map[string]string // data, not encoded
	version int
	asked   map[access]int

	// observe, if not nil, is called before a request is served, and after.
	observe func(a access, served bool)
}

// access is what somebody does with an object.
type access struct{ verb, resource, name string }

func startAPI(m *manifests) *apiServer {
	s := &apiServer{
		namespace: m.CronJob.Metadata.Namespace,
		account:   rand.Text(),
		role:      m.Role,
		secrets:   make(map[string]map[string]string),
		version:   1000,
		asked:     make(map[access]int),
	}
	for name, data := range m.Secrets {
		s.secrets[name] = maps.Clone(data)
	}
	s.server = httptest.NewTLSServer(s)
	return s
}

func (s *apiServer) close() { s.server.Close() }

// address returns what a pod finds in its environment.
func (s *apiServer) address() (host, port string) {
	u, err := url.Parse(s.server.URL)
	if err != nil {
		panic(err)
	}
	return u.Hostname(), u.Port()
}

func (s *apiServer) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
}

func (s *apiServer) accountToken() string { return s.account }

// secret returns a copy of a Secret's data.
func (s *apiServer) secret(name string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.secrets[name]
	if !ok {
		return nil, fmt.Errorf("there is no Secret %s", name)
	}
	return maps.Clone(data), nil
}

// token returns what the Secret that is rotated holds.
func (s *apiServer) token() (string, error) {
	data, err := s.secret(secretName)
	return data[secretKey], err
}

// granted returns every access that the Role grants.
func (s *apiServer) granted() []access {
	var all []access
	for _, rule := range s.role.Rules {
		for _, resource := range rule.Resources {
			for _, name := range rule.ResourceNames {
				for _, verb := range rule.Verbs {
					all = append(all, access{verb, resource, name})
				}
			}
		}
	}
	return all
}

// used returns every access that was asked for.
func (s *apiServer) used() []access {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.asked))
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/"+s.namespace+"/secrets")
	name = strings.TrimPrefix(name, "/")
	verb := map[string]string{http.MethodGet: "get", http.MethodPatch: "patch", http.MethodPost: "create"}[r.Method]
	a := access{verb, "secrets", name}
	if !ok || verb == "" {
		a = access{r.Method, r.URL.Path, ""}
	}
	if s.observe != nil {
		s.observe(a, false)
		defer s.observe(a, true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[a]++
	switch {
	case r.Header.Get("Authorization") != "Bearer "+s.account:
		status(w, http.StatusUnauthorized, "Unauthorized")
	case !slices.Contains(s.granted(), a):
		status(w, http.StatusForbidden, "Forbidden")
	case s.secrets[name] == nil:
		status(w, http.StatusNotFound, "NotFound")
	case verb == "patch":
		s.patch(w, r, name)
	default:
		s.answer(w, name)
	}
}

// patch merges a patch, unless it is for another version. The caller holds mu.
func (s *apiServer) patch(w http.ResponseWriter, r *http.Request, name string) {
	var patch struct {
		Metadata struct{ ResourceVersion string }
		Data     map[string]string
	}
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		status(w, http.StatusBadRequest, "BadRequest")
		return
	}
	if patch.Metadata.ResourceVersion != strconv.Itoa(s.version) {
		status(w, http.StatusConflict, "Conflict")
		return
	}
	for key, encoded := range patch.Data {
		value, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			status(w, http.StatusBadRequest, "BadRequest")
			return
		}
		s.secrets[name][key] = string(value)
	}
	s.version++
	s.answer(w, name)
}

// answer sends a Secret. The caller holds mu.
func (s *apiServer) answer(w http.ResponseWriter, name string) {
	data := make(map[string]string)
	for key, value := range s.secrets[name] {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	send(w, http.StatusOK, map[string]any{
		"kind": "Secret", "apiVersion": "v1", "type": "Opaque", "data": data,
		"metadata": map[string]string{"name": name, "namespace": s.namespace, "resourceVersion": strconv.Itoa(s.version)},
	})
}

func status(w http.ResponseWriter, code int, reason string) {
	send(w, code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
}

func send(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the other side may have gone
}
