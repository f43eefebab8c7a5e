package jobfile_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
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

	job = hooked(t, "  verify: {url: 'http://"+l.Addr().String()+"/'}")
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
	job := hooked(t, "  verify: {command: [./not-there]}\n  acknowledge: {command: [keywright-is-not-there]}")
	for _, run := range []func(context.Context, keywright.Secret) error{job.Verify, job.Acknowledge} {
		err := run(t.Context(), keywright.NewSecret(canary))
		require.ErrorContains(t, err, "the command is not found or may not be run")
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

func TestEscrow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := load(t, dir, "ricloud: {token_env: NOT_USED}\n"+paired("  escrow: {type: file, path: escrow}"))
	job, err := f.Job("a")
	require.NoError(t, err)
	for _, token := range []string{"first-token", "second-token", "second-token"} {
		require.NoError(t, job.Escrow(t.Context(), keywright.NewSecret(token)))
		b, err := os.ReadFile(filepath.Join(dir, "escrow"))
		require.NoError(t, err)
		assert.Equal(t, token+"\n", string(b))
	}
	require.NoError(t, os.Remove(filepath.Join(dir, "escrow")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "escrow"), 0o700))
	assert.Error(t, job.Escrow(t.Context(), keywright.NewSecret("third-token")))
}
