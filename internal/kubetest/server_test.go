//go:build unix

// Package kubetest holds a test of the Kubernetes sink against a real API
// server with a real etcd, if both are on this machine. It speaks to them in
// plain REST, so that nobody downloads Kubernetes.
package kubetest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	adminToken = "canary-admin-0123456789"
	namespace  = "shop"
	core       = "/api/v1/namespaces/" + namespace
	patience   = 2 * time.Minute // an API server on a busy machine starts slowly
)

// server is an API server of an empty cluster: it has neither nodes nor
// controllers. Only RBAC lets anybody do anything.
type server struct {
	addr   string
	client *http.Client // trusts its certificate
}

// binary returns the path of a program, or "" if it is absent. A variable that
// is set is believed: what it names must be there.
func binary(t *testing.T, variable, name string) string {
	t.Helper()
	if path := os.Getenv(variable); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Logf("left out: the binary %s is absent; it is not in PATH, and %s does not name it", name, variable)
		return ""
	}
	return path
}

// start runs both programs until the test ends.
func start(t *testing.T, apiserver, etcd string) *server {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile, roots := certificate(t, dir)
	tokens := filepath.Join(dir, "tokens.csv")
	require.NoError(t, os.WriteFile(tokens, []byte(adminToken+",admin,1,system:masters\n"), 0o600))

	transport, ok := http.DefaultTransport.(*http.Transport)
	require.True(t, ok)
	transport = transport.Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.Cleanup(transport.CloseIdleConnections)
	store, api := freeAddrs(t)
	s := &server{"https://" + api, &http.Client{Transport: transport, Timeout: 15 * time.Second}}

	// Ctrl-C does not reach other process groups, and go test's timeout leaves
	// no time for a cleanup.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	if deadline, ok := t.Deadline(); ok {
		ctx, stop = context.WithDeadline(ctx, deadline.Add(-5*time.Second))
		t.Cleanup(stop)
	}
	ctx = run(ctx, t, dir, etcd,
		"--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://"+store, "--advertise-client-urls=http://"+store,
		"--listen-peer-urls=http://127.0.0.1:0")
	s.await(ctx, t, "http://"+store+"/health")
	_, port, err := net.SplitHostPort(api)
	require.NoError(t, err)
	ctx = run(ctx, t, dir, apiserver,
		"--etcd-servers=http://"+store,
		"--bind-address=127.0.0.1", "--secure-port="+port, "--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--tls-cert-file="+certFile, "--tls-private-key-file="+keyFile,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file="+keyFile, "--service-account-key-file="+keyFile,
		"--token-auth-file="+tokens, "--anonymous-auth=false", "--authorization-mode=RBAC")
	s.await(ctx, t, s.addr+"/readyz")
	var version struct{ GitVersion string }
	s.must(t, http.MethodGet, "/version", "", &version)
	t.Log("kube-apiserver", version.GitVersion)
	s.must(t, http.MethodPost, "/api/v1/namespaces", `{"metadata":{"name":"`+namespace+`"}}`, nil)
	return s
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key,
// which is the key of the service accounts' tokens too.
func certificate(t *testing.T, dir string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	return write("tls.crt", "CERTIFICATE", der), write("tls.key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), roots
}

// freeAddrs returns two addresses on which nobody listens.
func freeAddrs(t *testing.T) (string, string) {
	t.Helper()
	var addrs [2]string
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		addrs[i] = l.Addr().String()
	}
	return addrs[0], addrs[1]
}

// run starts a program in a process group of its own, and without the
// environment, which etcd takes settings from. The group is killed when ctx
// ends, and that of a test ends before the test's cleanup. The context that
// run returns ends with the program too, and says how.
func run(ctx context.Context, t *testing.T, dir, path string, args ...string) context.Context {
	t.Helper()
	name := filepath.Base(path)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, []string{}, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	require.NoError(t, cmd.Start())
	alive, end := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		end(fmt.Errorf("%s ended: %v", name, cmd.Wait()))
	}()
	t.Cleanup(func() {
		<-ended
		assert.NoError(t, log.Close())
		said, err := os.ReadFile(log.Name())
		assert.NoError(t, err)
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", name, said[max(0, len(said)-4096):])
		}
	})
	return alive
}

// poll asks until the answer is yes.
func poll(ctx context.Context, t *testing.T, what string, yes func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			require.FailNow(t, "waited in vain: "+what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (s *server) await(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	poll(ctx, t, url, func() bool {
		status, _, err := s.do(ctx, http.MethodGet, url, "")
		return err == nil && status == http.StatusOK
	})
}

// do makes a request as the administrator.
func (s *server) do(ctx context.Context, method, url, body string) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// must makes a request, in the way of other programs, and reads the answer
// into out unless that is nil.
func (s *server) must(t *testing.T, method, path, body string, out any) {
	t.Helper()
	status, answer, err := s.do(t.Context(), method, s.addr+path, body)
	require.NoError(t, err)
	require.Less(t, status, 300, "%s %s: %s", method, path, answer)
	if out != nil {
		require.NoError(t, json.Unmarshal(answer, out))
	}
}

// account makes a service account that may do the verbs with the Secrets of
// its namespace, and returns its token, as a pod would get it.
func (s *server) account(t *testing.T, name string, verbs ...string) string {
	t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace
	quoted, err := json.Marshal(verbs)
	require.NoError(t, err)
	s.must(t, http.MethodPost, core+"/serviceaccounts", fmt.Sprintf(`{"metadata":{"name":%q}}`, name), nil)
	s.must(t, http.MethodPost, rbac+"/roles", fmt.Sprintf(`{"metadata":{"name":%q},
		"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":%s}]}`, name, quoted), nil)
	s.must(t, http.MethodPost, rbac+"/rolebindings", fmt.Sprintf(`{"metadata":{"name":%[1]q},
		"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":%[1]q},
		"subjects":[{"kind":"ServiceAccount","name":%[1]q,"namespace":%[2]q}]}`, name, namespace), nil)

	// The API server learns of its own rules a moment later.
	poll(t.Context(), t, name+"'s permission", func() bool {
		var review struct {
			Status struct{ Allowed bool }
		}
		s.must(t, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", fmt.Sprintf(`{"spec":{
			"user":"system:serviceaccount:%[1]s:%[2]s",
			"resourceAttributes":{"namespace":%[1]q,"resource":"secrets","verb":%[3]q}}}`, namespace, name, verbs[0]), &review)
		return review.Status.Allowed
	})
	var request struct {
		Status struct{ Token string }
	}
	s.must(t, http.MethodPost, core+"/serviceaccounts/"+name+"/token", `{}`, &request)
	require.NotEmpty(t, request.Status.Token)
	return request.Status.Token
}
