package jobfile_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
	"github.com/keywright/keywright/rotation/sink"
)

// load writes a job file into dir and loads it, away from the environment.
func load(t *testing.T, dir, text string) *jobfile.File {
	t.Helper()
	path := filepath.Join(dir, jobfile.DefaultName)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	f, err := jobfile.Load(path, jobfile.WithClientOptions(keywright.WithoutEnvironment()))
	require.NoError(t, err)
	return f
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestRotate_ricloud(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(1)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), fake.TokenOf(1))
	write(t, filepath.Join(dir, ".env"), "# kept\nRICLOUD_TOKEN="+fake.TokenOf(1)+"\n")
	f := load(t, dir, `
version: 1
ricloud: {url: "`+fake.URL()+`", token_file: token}
jobs:
  - name: billing
    strategy: ricloud-paired
    keys: [1, 2]
    sinks:
      - {type: file, path: token, mode: 0640, lag: 0s}
      - {type: dotenv, path: ./.env, variable: RICLOUD_TOKEN}
    acknowledge: {command: [`+self(t)+`, child, "0"]}
`)
	rc, err := f.RicloudClient()
	require.NoError(t, err)
	defer rc.CloseIdleConnections()
	engine, err := f.Open()
	require.NoError(t, err)
	job, err := f.Job("billing")
	require.NoError(t, err)
	result, err := engine.Rotate(t.Context(), job)
	require.NoError(t, err)
	assert.Equal(t, rotation.StateDone, result.State)

	for name, want := range map[string]string{"token": fake.TokenOf(2) + "\n", ".env": "# kept\nRICLOUD_TOKEN=" + fake.TokenOf(2) + "\n"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, string(b), name)
	}
	if runtime.GOOS != "windows" {
		info, err := os.Stat(filepath.Join(dir, "token"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o640), info.Mode())
	}
	assert.DirExists(t, filepath.Join(dir, ".keywright", "billing"))
	assert.FileExists(t, filepath.Join(dir, ".keywright", "sealing.key"))
}

func TestRotate_acedata(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartAceData(t)
	fake.AddCredentials(1)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "platform"), fake.Token())
	ac, err := keywright.NewAceData(keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	require.NoError(t, err)
	defer ac.CloseIdleConnections()
	page, err := keywright.Collect(ac.Credential.All(t.Context(), keywright.CredentialListParams{}), 10)
	require.NoError(t, err)
	var id keywright.CredentialID
	for _, c := range page {
		if c.Type == keywright.CredentialToken {
			id = c.ID
		}
	}
	old := fake.AcceptedTokens(string(id))
	require.NotEmpty(t, old)

	f := load(t, dir, `
version: 1
journal: state
seal_key: {file: seal.key}
acedata: {url: "`+fake.URL()+`", token_file: platform}
jobs:
  - name: app
    strategy: acedata-swap
    credential: `+string(id)+`
    idle_for: never
    sinks:
      - {type: file, path: token, lag: 0s}
    verify: {url: "`+fake.URL()+keywrighttest.ProbePath+`"}
`)
	client, err := f.AceDataClient()
	require.NoError(t, err)
	defer client.CloseIdleConnections()
	engine, err := f.Open()
	require.NoError(t, err)
	job, err := f.Job("app")
	require.NoError(t, err)
	result, err := engine.Rotate(t.Context(), job)
	require.NoError(t, err)
	assert.Equal(t, rotation.StateDone, result.State)
	assert.Positive(t, fake.Count("probe"))
	assert.FileExists(t, filepath.Join(dir, "seal.key"))

	b, err := os.ReadFile(filepath.Join(dir, "token"))
	require.NoError(t, err)
	token := strings.TrimSpace(string(b))
	assert.NotContains(t, old, token)
	require.NoError(t, job.Verify(t.Context(), keywright.NewSecret(token)))
	assert.ErrorIs(t, job.Verify(t.Context(), keywright.NewSecret(old[0])), rotation.ErrNotAccepted)
}

// self is this test binary, as YAML.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	b, err := json.Marshal(path)
	require.NoError(t, err)
	return string(b)
}

const canary = "4f9A8b7C6d5E4f3A2b1C0d"

// hooked returns a job with some hooks.
func hooked(t *testing.T, hooks string) rotation.Job {
	t.Helper()
	f := load(t, t.TempDir(), "ricloud: {token_env: NOT_USED}\n"+paired(hooks))
	job, err := f.Job("a")
	require.NoError(t, err)
	return job
}

func TestVerify_url(t *testing.T) {
	t.Parallel()
	var asked, followed string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("Authorization")
		if r.URL.Path == "/followed" {
			followed = asked
		}
		if strings.HasPrefix(r.URL.Path, "/echo") { // a peer that repeats what it is told, out of order
			conn, _, _ := http.NewResponseController(w).Hijack()
			_, _ = conn.Write([]byte(r.Header.Get("Authorization") + "\r\n\r\n"))
			_ = conn.Close()
			return
		}
		status := 0
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Location", "/followed")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(strings.Repeat(canary, 10_000)))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	other := errors.New("says nothing")

	for _, c := range []struct {
		path, more string
		want       error
	}{
		{"/200", "", nil},
		{"/204?x=y", "", nil},
		{"/401", "", rotation.ErrNotAccepted},
		{"/403", "", rotation.ErrNotAccepted},
		{"/302", "", other},
		{"/404", "", other},
		{"/429", "", other},
		{"/500", "", other},
		{"/echo", "", other},
		{"/404", ", accepted: [404], refused: [200]", nil},
		{"/200", ", accepted: [404], refused: [200]", rotation.ErrNotAccepted},
		{"/200", ", refused: [200]", rotation.ErrNotAccepted},
		{"/201", ", accepted: [200]", other},
		{"/401", ", refused: [402]", other},
	} {
		job := hooked(t, "  verify: {url: '"+server.URL+c.path+"', ca_file: '"+ca+"'"+c.more+"}")
		err := job.Verify(t.Context(), keywright.NewSecret(canary))
		assert.Equal(t, "GET "+c.path+" Token "+canary, asked)
		switch {
		case c.want == nil:
			assert.NoError(t, err, c)
		case c.want == other:
			assert.Error(t, err, c)
			assert.NotErrorIs(t, err, rotation.ErrNotAccepted, c)
		default:
			assert.ErrorIs(t, err, c.want, c)
		}
		for ; err != nil; err = errors.Unwrap(err) {
			assert.NotContains(t, err.Error(), canary)
		}
	}
	assert.Empty(t, followed)

	// Without the server's own authority it is not believed.
	job := hooked(t, "  verify: {url: '"+server.URL+"/200', scheme: Bearer}")
	err := job.Verify(t.Context(), keywright.NewSecret(canary))
	assert.ErrorContains(t, err, "certificate")
	assert.NotErrorIs(t, err, rotation.ErrNotAccepted)
	err = job.Verify(t.Context(), keywright.NewSecret(canary+"\n"))
	assert.EqualError(t, err, "jobfile: verify: the request failed")
}

func TestVerify_noAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	require.NoError(t, err)
	job := hooked(t, "  verify: {url: 'http://"+l.Addr().String()+"/', timeout: 20ms}")
	err = job.Verify(t.Context(), keywright.NewSecret(canary))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, "jobfile: verify: no answer in time")
	require.NoError(t, l.Close())

	job = hooked(t, "  verify: {url: 'http://127.0.0.1:1/'}") // where nobody listens
	err = job.Verify(t.Context(), keywright.NewSecret(canary))
	require.ErrorContains(t, err, "jobfile: verify: dial tcp ")
	require.NotErrorIs(t, err, rotation.ErrNotAccepted)
}

func TestCommands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code                string
		verify, acknowledge error // nil: no error; errOther: none of ours
	}{
		{"0", nil, nil},
		{"1", rotation.ErrNotAccepted, errOther},
		{"75", errOther, rotation.ErrNotReady},
		{"2", errOther, errOther},
	} {
		command := "{command: [" + self(t) + ", child, '" + c.code + "'], env: [GORACE]}"
		job := hooked(t, "  verify: "+command+"\n  acknowledge: "+command)
		for name, hook := range map[string]struct {
			run  func(context.Context, keywright.Secret) error
			want error
		}{"verify": {job.Verify, c.verify}, "acknowledge": {job.Acknowledge, c.acknowledge}} {
			err := hook.run(t.Context(), keywright.NewSecret(canary))
			if hook.want == nil {
				require.NoError(t, err)
				continue
			}
			require.Error(t, err)
			assert.Equal(t, hook.want != errOther, errors.Is(err, rotation.ErrNotAccepted) || errors.Is(err, rotation.ErrNotReady))
			if hook.want != errOther {
				assert.ErrorIs(t, err, hook.want)
			}
			assert.Contains(t, err.Error(), name+": the command ended with exit code "+c.code+": I was given [REDACTED]")
			assert.NotContains(t, err.Error(), canary)
		}
	}
}

var errOther = errors.New("another error")

// TestCommands_relative finds a command beside the file, whatever the
// directory that the program runs in.
func TestCommands_relative(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell script")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "works"), []byte("#!/bin/sh\nexit 1\n"), 0o700))
	f := load(t, dir, "ricloud: {token_env: NOT_USED}\n"+paired("  verify: {command: [./works]}\n  acknowledge: {command: [sh, -c, 'sleep 60'], timeout: 10ms}"))
	job, err := f.Job("a")
	require.NoError(t, err)
	require.ErrorIs(t, job.Verify(t.Context(), keywright.NewSecret(canary)), rotation.ErrNotAccepted)
	begun := time.Now()
	require.ErrorIs(t, job.Acknowledge(t.Context(), keywright.NewSecret(canary)), context.DeadlineExceeded)
	require.Less(t, time.Since(begun), 30*time.Second)
}

// TestJob_withoutCommand shows that a command which is not there is found out
// before a token waits for it.
func TestJob_withoutCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "no-program"), "")
	const cannot = "the command is not there or not executable"
	for more, want := range map[string]string{
		"  verify: {command: [./not-there]}":                                       "verify.command",
		"  verify: {command: [keywright-is-not-there]}":                            "verify.command",
		"  verify: {command: [./no-program]}":                                      "verify.command",
		"  verify: {command: ['']}":                                                "verify.command",
		"  verify: {command: [./.]}":                                               "verify.command",
		"  acknowledge: {command: [no/such/thing, a]}":                             "acknowledge.command",
		"  escrow: {type: exec, name: a, command: [./not-there]}":                  "escrow.command",
		"  escrow: {type: exec, name: a, command: [" + self(t) + "], env: [PATH]}": "",
	} {
		job, err := load(t, dir, "ricloud: {token_env: NOT_USED}\n"+paired(more)).Job("a")
		if want == "" {
			require.NoError(t, err)
			assert.NotNil(t, job.Escrow)
			continue
		}
		require.EqualError(t, err, filepath.Join(dir, jobfile.DefaultName)+":8: jobs[0]."+want+": "+cannot)
		var bad *jobfile.Error
		require.ErrorAs(t, err, &bad)
		var missing *exec.Error
		require.ErrorAs(t, err, &missing)
	}
	_, err := load(t, dir, "version: 1\nricloud: {token_env: NOT_USED}\njobs:\n- name: a\n  strategy: ricloud-overlap\n  key: 1\n  sinks:\n"+
		"  - {type: file, path: a}\n  - type: exec\n    name: a\n    command: [./not-there]\n").Job("a")
	require.EqualError(t, err, filepath.Join(dir, jobfile.DefaultName)+":11: jobs[0].sinks[1].command: "+cannot)
}

func TestEscrow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "escrow")
	f := load(t, dir, "ricloud: {token_env: NOT_USED}\n"+paired("  escrow: {type: file, path: escrow}"))
	job, err := f.Job("a")
	require.NoError(t, err)
	holds := func(want string) {
		t.Helper()
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, want, string(b))
	}
	for range 2 { // the same again is no harm
		require.NoError(t, job.Escrow(t.Context(), keywright.NewSecret(canary)))
		holds(canary + "\n")
	}
	err = job.Escrow(t.Context(), keywright.NewSecret("second-token"))
	require.ErrorIs(t, err, sink.ErrConflict)
	require.EqualError(t, err, "jobfile: escrow: file "+path+" holds something already, which is not replaced; move it away")
	holds(canary + "\n")

	write(t, path, "\n") // nothing
	require.NoError(t, job.Escrow(t.Context(), keywright.NewSecret("second-token")))
	holds("second-token\n")
	write(t, path, "two words\nand lines\n")
	require.Error(t, job.Escrow(t.Context(), keywright.NewSecret("second-token")))
	holds("two words\nand lines\n")

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	assert.Error(t, job.Escrow(t.Context(), keywright.NewSecret("third-token")))
}

// TestEscrow_services has escrows that cannot be read, or that lose what was
// written.
func TestEscrow_services(t *testing.T) {
	t.Parallel()
	written := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/repos/o/r/actions/secrets/TAKEN":
			_, _ = io.WriteString(w, `{"name":"TAKEN","updated_at":"2026-11-22T00:00:00Z"}`)
		case r.Method == http.MethodPost:
			written++
			_, _ = io.WriteString(w, `{"data":{"version":1}}`)
		case written > 0: // another token than the one that was written
			_, _ = io.WriteString(w, `{"data":{"data":{"token":"other-token"},"metadata":{"version":1}}}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":[]}`)
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "service.token"), "abcdefgh12345678")
	run := func(escrow string) error {
		job, err := load(t, dir, "ricloud: {token_env: NOT_USED}\n"+paired("  escrow: {"+escrow+", address: '"+server.URL+"', token_file: service.token}")).Job("a")
		require.NoError(t, err)
		return job.Escrow(t.Context(), keywright.NewSecret(canary))
	}
	require.ErrorContains(t, run("type: github, owner: o, repo: r, name: TAKEN"), "holds something already, which is not replaced; move it away")
	assert.Zero(t, written)
	err := run("type: vault, path: a")
	require.ErrorIs(t, err, sink.ErrConflict)
	assert.ErrorContains(t, err, "confirm")
	assert.Equal(t, 1, written)
}

// TestSinks_ca shows that services are asked with the authority of ca_file.
func TestSinks_ca(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[]}`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	write(t, filepath.Join(dir, "service.token"), "abcdefgh12345678")
	for _, kind := range []string{
		"type: vault, path: a", "type: kubernetes, namespace: a, name: b, key: c", "type: github, owner: o, repo: r, name: A",
	} {
		read := func(ca string) error {
			f := load(t, dir, "version: 1\nricloud: {token_env: NOT_USED}\njobs:\n- {name: a, strategy: ricloud-overlap, key: 1, sinks: [{"+
				kind+", address: '"+server.URL+"', token_file: service.token"+ca+"}]}\n")
			job, err := f.Job("a")
			require.NoError(t, err)
			_, err = job.Sinks[0].Read(t.Context())
			return err
		}
		require.ErrorContains(t, read(""), "certificate", kind)
		if err := read(", ca_file: ca.pem"); err != nil { // the service may mind the 404
			assert.NotContains(t, err.Error(), "certificate", kind)
		}
	}
}

// TestClient_retries counts the attempts of a call.
func TestClient_retries(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "abcdefgh12345678")
	for retries, want := range map[string]int32{"0": 1, "1": 2} {
		asked.Store(0)
		f := load(t, dir, "ricloud: {url: '"+server.URL+"', token_file: token, retries: "+retries+"}\n"+paired(""))
		rc, err := f.RicloudClient()
		require.NoError(t, err)
		_, err = rc.Key.Retrieve(t.Context(), 1)
		require.Error(t, err)
		assert.Equal(t, want, asked.Load(), retries)
		rc.CloseIdleConnections()
	}
}

// TestClient_again makes a client when its token is there at last, and only
// one.
func TestClient_again(t *testing.T) {
	const variable = "ACEDATACLOUD_PLATFORM_TOKEN"
	t.Setenv(variable, "")
	dir := t.TempDir()
	path := filepath.Join(dir, jobfile.DefaultName)
	write(t, path, "ricloud: {config_file: ricloud.ini}\n"+paired(""))
	f, err := jobfile.Load(path)
	require.NoError(t, err)
	_, err = f.RicloudClient()
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.Job("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.AceDataClient()
	require.ErrorContains(t, err, variable)

	write(t, filepath.Join(dir, "ricloud.ini"), "[api]\ntoken = abcdefgh12345678\n")
	t.Setenv(variable, "platform-abcdefgh12345678")
	_, err = f.Job("a")
	require.NoError(t, err)
	rc, err := f.RicloudClient()
	require.NoError(t, err)
	ac, err := f.AceDataClient()
	require.NoError(t, err)

	require.NoError(t, os.Remove(filepath.Join(dir, "ricloud.ini"))) // it is made already
	rcAgain, err := f.RicloudClient()
	require.NoError(t, err)
	assert.Same(t, rc, rcAgain)
	acAgain, err := f.AceDataClient()
	require.NoError(t, err)
	assert.Same(t, ac, acAgain)
}

// TestClient_configFile shows that what the file says goes before the
// environment.
func TestClient_configFile(t *testing.T) {
	named, own := keywrighttest.StartRicloud(t), keywrighttest.StartRicloud(t)
	named.AddKeys(1)
	own.AddKeys(1)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ricloud.ini"), "[api]\nurl = "+named.URL()+"\ntoken = "+named.Token()+"\n")
	write(t, filepath.Join(dir, "own.token"), own.Token())
	t.Setenv("RICLOUD_TOKEN", "token-of-the-environment")
	t.Setenv("RICLOUD_URL", "https://environment.invalid")
	t.Setenv("RICLOUD_MAX_RETRIES", "none")
	for section, fake := range map[string]*keywrighttest.Ricloud{
		"config_file: ricloud.ini": named,
		"config_file: ricloud.ini, token_file: own.token, url: '" + own.URL() + "'": own,
	} {
		path := filepath.Join(dir, jobfile.DefaultName)
		write(t, path, "ricloud: {"+section+"}\n"+paired(""))
		f, err := jobfile.Load(path)
		require.NoError(t, err)
		rc, err := f.RicloudClient()
		require.NoError(t, err, section)
		_, err = rc.Key.Retrieve(t.Context(), 1)
		require.NoError(t, err, section)
		assert.Len(t, fake.Requests(), 1, section)
		rc.CloseIdleConnections()
	}
}
