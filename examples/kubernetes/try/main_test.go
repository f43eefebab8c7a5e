//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation/jobfile"
)

// program returns the path of the program, built as the Dockerfile does.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "keywright")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "../../../cmd/keywright")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return path, nil
})

// scratch is a directory of all tests.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "keywright-kubernetes-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// render returns what kubectl would apply.
func render(t *testing.T, dir string) []byte {
	t.Helper()
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("left out: kubectl is not in PATH")
	}
	var problems bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "kubectl", "kustomize", dir)
	cmd.Stderr = &problems
	b, err := cmd.Output()
	require.NoError(t, err, problems.String())
	return b
}

// isolated skips a test where a process cannot have a root of its own.
func isolated(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: "/", Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		t.Skip("left out: this machine has no user namespaces for tests: ", err)
	}
	require.NoError(t, cmd.Wait())
}

// cluster is a node with a fake ricloud that does not forget with its pod.
type cluster struct {
	*node
	api  *apiServer
	fake *keywrighttest.Ricloud
	log  *buffer

	mu      sync.Mutex
	process *os.Process // of the container that runs
}

func newCluster(t *testing.T, opts ...keywrighttest.Option) *cluster {
	t.Helper()
	isolated(t)
	b := render(t, "../mock")
	m, err := parse(b)
	require.NoError(t, err)
	fake := keywrighttest.StartRicloud(t, append(opts, keywrighttest.WithFirstToken(m.Secrets[secretName][secretKey]))...)
	fake.AddKeys(1)
	b = bytes.Replace(b, []byte("lag: 3s"), []byte("lag: 1s"), 1) // not to wait
	m, err = parse(listen(b, strings.TrimPrefix(fake.URL(), "http://")))
	require.NoError(t, err)
	m.CronJob.Spec.JobTemplate.Spec.Template.Spec.InitContainers = nil
	built, err := program()
	require.NoError(t, err)
	c := &cluster{api: startAPI(m), fake: fake, log: new(buffer)}
	t.Cleanup(c.api.close)
	c.node = &node{dir: t.TempDir(), program: built, api: c.api, m: m, log: c.log, started: func(p *os.Process) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.process = p
	}}
	t.Cleanup(func() {
		assert.NoError(t, c.remove())
		if t.Failed() {
			t.Log(c.log.String())
		}
	})
	return c
}

// signal sends a signal to the container that runs.
func (c *cluster) signal(s os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.process.Signal(s) // it may have ended
}

// requireRotated checks that a rotation is over: the Secret holds the only
// token that the provider accepts for a key in use, and it is not the first.
func (c *cluster) requireRotated(t *testing.T) {
	t.Helper()
	token, err := c.api.token()
	require.NoError(t, err)
	require.NotEqual(t, c.m.Secrets[secretName][secretKey], token)
	require.NoError(t, ask(c.fake.URL(), token))
	require.Error(t, ask(c.fake.URL(), c.m.Secrets[secretName][secretKey]), "the first token is still accepted")
	for _, accepted := range slices.Concat(c.fake.AcceptedTokens(1), c.fake.AcceptedTokens(2)) {
		require.NotContains(t, c.log.String(), accepted, "a token is in the log")
	}
	require.Contains(t, c.log.String(), "state        DONE")
}

// buffer is a bytes.Buffer for several writers.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestManifests(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"base", "mock"} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			m, err := parse(render(t, "../"+dir))
			require.NoError(t, err)

			cron := m.CronJob.Spec
			assert.Equal(t, "Forbid", cron.ConcurrencyPolicy)
			job := cron.JobTemplate.Spec
			assert.Greater(t, cron.StartingDeadlineSeconds, 10, "the controller looks every ten seconds")
			assert.Positive(t, job.ActiveDeadlineSeconds)
			for code, again := range map[int]bool{1: true, 2: false, 3: true, 4: false, 5: false, 6: true, 7: false, 130: true, 137: true} {
				assert.Equal(t, again, !job.fails("keywright", code), "exit code %d", code)
			}

			pod := job.Template.Spec
			assert.Equal(t, "Never", pod.RestartPolicy, "podFailurePolicy wants it")
			assert.GreaterOrEqual(t, pod.TerminationGracePeriodSeconds, 45, "a call may take 30 seconds")
			s := pod.SecurityContext
			assert.True(t, s.RunAsNonRoot)
			assert.Equal(t, []int{65532, 65532, 65532}, []int{s.RunAsUser, s.RunAsGroup, s.FSGroup})
			assert.Equal(t, "RuntimeDefault", s.SeccompProfile.Type)
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				assert.False(t, c.SecurityContext.AllowPrivilegeEscalation)
				assert.True(t, c.SecurityContext.ReadOnlyRootFilesystem)
				assert.Equal(t, []string{"ALL"}, c.SecurityContext.Capabilities.Drop)
				assert.NotEmpty(t, c.Resources.Requests)
				assert.NotEmpty(t, c.Resources.Limits)
			}

			// One account, one role, one binding, and the same namespace.
			assert.Equal(t, m.Account.Metadata.Name, pod.ServiceAccountName)
			assert.False(t, m.Account.AutomountServiceAccountToken)
			assert.Equal(t, m.Role.Metadata.Name, m.Binding.RoleRef.Name)
			require.Len(t, m.Binding.Subjects, 1)
			assert.Equal(t, m.Account.Metadata.Name, m.Binding.Subjects[0].Name)
			assert.Equal(t, m.CronJob.Metadata.Namespace, m.Binding.Subjects[0].Namespace)
			assert.Equal(t, m.CronJob.Metadata.Namespace, m.Role.Metadata.Namespace)

			// The job file is mounted where it is looked for, and good.
			container := pod.Containers[0]
			mounted := make(map[string]volume)
			for _, mount := range container.VolumeMounts {
				i := slices.IndexFunc(pod.Volumes, func(v volume) bool { return v.Name == mount.Name })
				require.GreaterOrEqual(t, i, 0)
				mounted[mount.MountPath] = pod.Volumes[i]
			}
			file := container.Args[slices.Index(container.Args, "--file")+1]
			require.NotNil(t, mounted[path.Dir(file)].ConfigMap)
			text := m.Configs[mounted[path.Dir(file)].ConfigMap.Name][path.Base(file)]
			f, err := jobfile.Parse(file, []byte(text))
			require.NoError(t, err)
			require.Len(t, f.Jobs, 1)
			assert.Equal(t, f.Jobs[0].Name, container.Args[2])
			assert.Equal(t, f.SealKey.Env, container.Env[0].Name)
			require.NotNil(t, mounted[path.Dir(f.Journal)].PersistentVolumeClaim)
			require.Len(t, m.Claims, 1)
			assert.Equal(t, m.Claims[0].Metadata.Name, mounted[path.Dir(f.Journal)].PersistentVolumeClaim.ClaimName)
			require.NotNil(t, mounted[path.Dir(f.Ricloud.TokenFile)].Secret)
			assert.Equal(t, secretName, mounted[path.Dir(f.Ricloud.TokenFile)].Secret.SecretName)

			// The Role is for what the job writes to.
			require.Len(t, f.Jobs[0].Sinks, 1)
			require.Len(t, m.Role.Rules, 1)
			assert.Equal(t, m.Role.Rules[0].ResourceNames, []string{f.Jobs[0].Sinks[0].Name})

			if dir == "base" {
				assert.Empty(t, m.Secrets, "what is applied again must not bring an old token back")
				assert.Empty(t, pod.InitContainers)
				assert.NotContains(t, text, "http://")
			}
		})
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	t.Parallel()
	b := render(t, "../mock")
	for _, field := range []string{"concurrencyPolicy:", "readOnlyRootFilesystem:", "resourceNames:", "accessModes:"} {
		_, err := parse(bytes.Replace(b, []byte(field), []byte("x"+field), 1))
		assert.Error(t, err, field)
	}
}

func TestTryScript(t *testing.T) {
	t.Parallel()
	render(t, "../mock") // or it is left out
	isolated(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // it builds, perhaps without a cache
	defer cancel()
	cmd := exec.CommandContext(ctx, "../try.sh")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	assert.Equal(t, 2, strings.Count(string(said), "has another token, and the provider accepts it"), string(said))
}

func TestRoleGrantsWhatIsUsed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	codes, err := c.job(deadline(t))
	require.NoError(t, err)
	require.Equal(t, []int{0}, codes)
	c.requireRotated(t)
	assert.ElementsMatch(t, c.api.granted(), c.api.used())
}

func TestKilled(t *testing.T) {
	t.Parallel()
	var killed sync.Map
	once := func(t *testing.T, c *cluster) {
		if _, before := killed.LoadOrStore(t.Name(), true); !before {
			c.signal(syscall.SIGKILL)
		}
	}
	for name, served := range map[string]bool{"before the Secret is written": false, "after the Secret is written": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.api.observe = func(a access, s bool) {
				if a.verb == "patch" && s == served {
					once(t, c)
				}
			}
			codes, err := c.job(deadline(t))
			require.NoError(t, err)
			require.Equal(t, []int{137, 0}, codes)
			c.requireRotated(t)
		})
	}
	t.Run("when the token is issued", func(t *testing.T) {
		t.Parallel()
		var c *cluster
		c = newCluster(t, keywrighttest.WithObserver(func(r keywrighttest.Request, _ int) {
			if r.Op == "key.rotate" {
				once(t, c)
			}
		}))
		codes, err := c.job(deadline(t))
		require.NoError(t, err)
		require.Equal(t, []int{137, 0}, codes)
		c.requireRotated(t)
	})
}

func TestDrained(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var told sync.Once
	c.api.observe = func(a access, served bool) {
		if a.verb == "patch" && served {
			told.Do(func() { c.signal(syscall.SIGTERM) })
		}
	}
	codes, err := c.job(deadline(t))
	require.NoError(t, err)
	require.Equal(t, []int{130, 0}, codes)
	c.requireRotated(t)
}

func TestWhatNeedsAPersonIsNotRunAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		old, new string // in the job file
		code     int
	}{
		"the job file is wrong": {"version: 1", "version: one", 2},
		"there is no such key":  {"[1, 2]", "[1, 9]", 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			for _, files := range c.m.Configs {
				files["keywright.yaml"] = strings.Replace(files["keywright.yaml"], test.old, test.new, 1)
			}
			codes, err := c.job(deadline(t))
			require.Error(t, err)
			require.Equal(t, []int{test.code}, codes)
		})
	}
}

func TestJournalIsNotOpenedToTheGroup(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.spec().SecurityContext.FSGroupChangePolicy = "Always" // the default
	code, err := c.pod(deadline(t))
	require.NoError(t, err)
	require.Zero(t, code)
	code, err = c.pod(deadline(t))
	require.NoError(t, err)
	require.NotZero(t, code, "then fsGroupChangePolicy is not needed")
	require.Contains(t, c.log.String(), "lets others in")
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	mod, err := os.ReadFile("../../../go.mod")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(mod), "\ngo ")
	version, _, _ := strings.Cut(rest, ".0\n")
	assert.Contains(t, string(b), "golang:"+version+" ", "the version in go.mod")
	for _, want := range []string{"CGO_ENABLED=0", "./cmd/keywright", ":nonroot", "USER 65532:65532"} {
		assert.Contains(t, string(b), want)
	}
}

// TestDockerContext builds the program from the files that Docker would see.
func TestDockerContext(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../Dockerfile.dockerignore")
	require.NoError(t, err)
	const root = "../../.."
	dir := t.TempDir()
	require.NoError(t, filepath.WalkDir(root, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, from)
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir() || ignored(string(b), name):
			return nil
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, content, 0o600)
	}))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(t.TempDir(), "keywright"), "./cmd/keywright")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	assert.NoDirExists(t, filepath.Join(dir, "docs"))
}

// ignored reports what a .dockerignore says of a file: the last pattern that
// fits it, or a directory that it is in, decides.
func ignored(patterns, name string) (out bool) {
	for line := range strings.Lines(patterns) {
		pattern, again := strings.CutPrefix(strings.TrimSpace(line), "!")
		anywhere := strings.TrimPrefix(pattern, "**/")
		for p := name; p != "."; p = path.Dir(p) {
			fits, _ := path.Match(pattern, p)
			if anywhere != pattern {
				fits, _ = path.Match(anywhere, path.Base(p))
			}
			if fits || pattern == "**" {
				out = !again
				break
			}
		}
	}
	return out
}
