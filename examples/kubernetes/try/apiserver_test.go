//go:build linux

package main

import (
	"bytes"
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
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const adminToken = "canary-admin-0123456789"

// realAPI is a real API server with a real etcd: a cluster without nodes and
// controllers.
type realAPI struct {
	dir, addr string
	client    *http.Client
	pem       []byte
	namespace string
	token     string // of the service account
}

func (r *realAPI) address() (host, port string) {
	host, port, _ = net.SplitHostPort(strings.TrimPrefix(r.addr, "https://"))
	return host, port
}

func (r *realAPI) ca() []byte { return r.pem }

func (r *realAPI) accountToken() string { return r.token }

func (r *realAPI) secret(name string) (map[string]string, error) {
	var s struct{ Data map[string][]byte }
	if err := r.ask(http.MethodGet, "/api/v1/namespaces/"+r.namespace+"/secrets/"+name, nil, &s); err != nil {
		return nil, err
	}
	data := make(map[string]string)
	for key, value := range s.Data {
		data[key] = string(value)
	}
	return data, nil
}

// ask makes a request as the administrator.
func (r *realAPI) ask(method, path string, body, out any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, r.addr+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// installed returns the path of a program, or skips the test. A variable that
// is set is believed.
func installed(t *testing.T, variable, name string) string {
	t.Helper()
	if path := os.Getenv(variable); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("left out: %s is not in PATH, and %s does not name it", name, variable)
	}
	return path
}

func startRealAPI(ctx context.Context, t *testing.T) *realAPI {
	t.Helper()
	etcd, apiserver := installed(t, "KEYWRIGHT_ETCD", "etcd"), installed(t, "KEYWRIGHT_KUBE_APISERVER", "kube-apiserver")
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certFile := write("tls.crt", certificate)
	keyFile := write("tls.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	tokens := write("tokens.csv", []byte(adminToken+",admin,1,system:masters\n"))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(certificate))
	store, err := freeAddress()
	require.NoError(t, err)
	api, err := freeAddress()
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(api)
	require.NoError(t, err)

	run := func(path string, args ...string) {
		log, err := os.Create(filepath.Join(dir, filepath.Base(path)+".log"))
		require.NoError(t, err)
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, []string{}, log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
			_ = log.Close()
			if said, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
				t.Logf("the end of %s:\n%s", log.Name(), said[max(0, len(said)-3000):])
			}
		})
	}
	run(etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://"+store, "--advertise-client-urls=http://"+store, "--listen-peer-urls=http://127.0.0.1:0")
	run(apiserver, "--etcd-servers=http://"+store,
		"--bind-address=127.0.0.1", "--secure-port="+port, "--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--tls-cert-file="+certFile, "--tls-private-key-file="+keyFile,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file="+keyFile, "--service-account-key-file="+keyFile,
		"--token-auth-file="+tokens, "--anonymous-auth=false", "--authorization-mode=RBAC")
	transport, ok := http.DefaultTransport.(*http.Transport)
	require.True(t, ok)
	transport = transport.Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.Cleanup(transport.CloseIdleConnections)
	r := &realAPI{dir: dir, addr: "https://" + api, pem: certificate, client: &http.Client{Transport: transport, Timeout: 15 * time.Second}}
	await(ctx, t, "the API server", func() bool {
		return r.ask(http.MethodGet, "/apis/batch/v1", nil, nil) == nil && r.ask(http.MethodGet, "/api/v1/namespaces/default", nil, nil) == nil
	})
	return r
}

func await(ctx context.Context, t *testing.T, what string, yes func() bool) {
	t.Helper()
	for !yes() {
		select {
		case <-ctx.Done():
			require.FailNow(t, "waited in vain for "+what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// kubectl applies manifests, and returns what it says.
func (r *realAPI) kubectl(ctx context.Context, t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	ca := filepath.Join(r.dir, "tls.crt")
	config := filepath.Join(r.dir, "kubeconfig")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"t",
		"clusters":[{"name":"t","cluster":{"server":%q,"certificate-authority":%q}}],
		"users":[{"name":"t","user":{"token":%q}}],
		"contexts":[{"name":"t","context":{"cluster":"t","user":"t"}}]}`, r.addr, ca, adminToken), 0o600))
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+config, "HOME="+r.dir)
	cmd.Stdin = bytes.NewReader(stdin)
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	return string(said)
}

// TestAPIServer applies the manifests to a real API server, which validates
// them and has the pod's security looked at, and runs the pod against it with
// no more rights than the Role grants.
func TestAPIServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	b := render(t, "../mock")
	r := startRealAPI(ctx, t)

	t.Run("base", func(t *testing.T) {
		r.kubectl(ctx, t, nil, "create", "namespace", "billing")
		r.kubectl(ctx, t, nil, "label", "namespace", "billing", "pod-security.kubernetes.io/enforce=restricted")
		said := r.kubectl(ctx, t, nil, "apply", "--validate=strict", "-k", "../base")
		require.NotContains(t, said, "Warning")
		r.createPod(ctx, t, "billing")
	})
	t.Run("mock", func(t *testing.T) {
		isolated(t)
		address, err := freeAddress()
		require.NoError(t, err)
		said := r.kubectl(ctx, t, b, "apply", "--validate=strict", "-f", "-")
		require.NotContains(t, said, "Warning")
		m, err := parse(listen(b, address))
		require.NoError(t, err)
		r.namespace = m.CronJob.Metadata.Namespace
		r.createPod(ctx, t, r.namespace)

		account := "/api/v1/namespaces/" + r.namespace + "/serviceaccounts/" + m.Account.Metadata.Name
		var issued struct{ Status struct{ Token string } }
		require.NoError(t, r.ask(http.MethodPost, account+"/token", map[string]any{}, &issued))
		r.token = issued.Status.Token
		built, err := program()
		require.NoError(t, err)
		log := new(buffer)
		n := &node{dir: t.TempDir(), program: built, api: r, m: m, log: log}
		t.Cleanup(func() { _ = n.remove() })
		before, err := r.secret(secretName)
		require.NoError(t, err)
		var after map[string]string
		var accepted error
		n.finished = func() {
			if after, accepted = r.secret(secretName); accepted == nil {
				accepted = ask("http://"+address, after[secretKey])
			}
		}
		codes, err := n.job(ctx)
		require.NoError(t, err, log.String())
		require.Equal(t, []int{0}, codes)
		require.NoError(t, accepted)
		require.NotEqual(t, before[secretKey], after[secretKey])

		// What the account may do, as the API server sees it.
		who := "system:serviceaccount:" + r.namespace + ":" + m.Account.Metadata.Name
		list := r.kubectl(ctx, t, nil, "auth", "can-i", "--list", "--as", who, "-n", r.namespace)
		require.Regexp(t, `(?m)^secrets +\[\] +\[billing-ricloud\] +\[get patch\]`, list)
		require.Equal(t, 1, strings.Count(list, "secrets"), list)
	})
}

// createPod makes a pod of the CronJob's template: the API server admits it, or
// not.
func (r *realAPI) createPod(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	r.kubectl(ctx, t, nil, "create", "job", "by-hand", "--from=cronjob/keywright", "-n", namespace)
	var job struct {
		Spec struct {
			Template map[string]any `json:"template"`
		} `json:"spec"`
	}
	require.NoError(t, r.ask(http.MethodGet, "/apis/batch/v1/namespaces/"+namespace+"/jobs/by-hand", nil, &job))
	pod := job.Spec.Template
	pod["apiVersion"], pod["kind"], pod["metadata"] = "v1", "Pod", map[string]string{"name": "by-hand"}
	// The namespace's own account is made by a controller, and there is none.
	require.NoError(t, r.ask(http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods", pod, nil))
}
