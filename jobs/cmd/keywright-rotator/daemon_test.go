//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/keywrighttest"
)

// A key that is due is rotated, and everything that can be asked says so.
func TestDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	before := []string{w.token(0), w.token(1)}
	w.dueAtStart("job-0")
	st := w.sqlite()
	for _, days := range []time.Duration{89, 91} {
		_, err := st.AddRun(t.Context(), store.Run{Job: "job-1", Started: time.Now().Add(-days * 24 * time.Hour)})
		require.NoError(t, err)
	}
	require.NoError(t, st.Close())
	p := w.start().ready()
	p.rotated(before, 0)
	p.awaitLog(`msg="history pruned" removed=1`)
	w.learn()
	require.Equal(t, before[1], w.token(1), "it is not due")

	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n"} {
		code, header, body := p.get(path)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, want, body)
		require.Equal(t, "no-store", header.Get("Cache-Control"))
	}
	code, _, body := p.get("/")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "job-0")
	code, _, body = p.get("/keys/job-0")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "Healthy")
	m := p.metrics()
	require.EqualValues(t, 1, m.value(t, "keywright_rotation_runs_total", "provider", "ricloud", "result", "done"))
	require.EqualValues(t, 1, m.value(t, "keywright_rotation_state", "job", "job-0", "state", "DONE"))
	require.EqualValues(t, 1, m.value(t, "keywright_rotation_state", "job", "job-1", "state", "IDLE"))
	require.InDelta(t, 30*24*3600, m.value(t, "keywright_key_due_seconds", "job", "job-0"), 60)
	require.InDelta(t, 30, m.value(t, "keywright_key_age_seconds", "job", "job-0"), 30)
	require.EqualValues(t, 1, m.value(t, "keywright_worker_info", "worker", "w1"))
	require.NotZero(t, m.value(t, "process_resident_memory_bytes"))
	require.NotZero(t, m.value(t, "go_goroutines"))

	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
		code, header, _ := p.get(path, func(r *http.Request) { r.Method = http.MethodPost })
		require.Equal(t, http.StatusMethodNotAllowed, code)
		require.Equal(t, "GET, HEAD", header.Get("Allow"))
	}

	p.stop()
	log := p.log.String()
	assert.Contains(t, log, "version=0.1.0 database=sqlite worker=w1 jobs=2 listen=127.0.0.1:")
	assert.True(t, strings.HasSuffix(log, "msg=stopped\n"), log)
	for line := range strings.Lines(log) {
		if strings.Contains(line, "river") && !strings.Contains(line, "keywright") {
			assert.Contains(t, line, "level=DEBUG", "River's words are not for everybody")
		}
	}
	info, err := os.Stat(w.path("keywright.seal"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// exposition is what /metrics says.
type exposition map[string]*dto.MetricFamily

func (p *process) metrics(edit ...func(*http.Request)) exposition {
	p.w.t.Helper()
	code, _, body := p.get("/metrics", edit...)
	require.Equal(p.w.t, http.StatusOK, code, body)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(p.w.t, err)
	return families
}

// value is that of the metric that has the labels, among others.
func (e exposition) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range e[name].GetMetric() {
		of := make(map[string]string)
		for _, l := range m.GetLabel() {
			of[l.GetName()] = l.GetValue()
		}
		found := true
		for i := 0; i < len(labels); i += 2 {
			found = found && of[labels[i]] == labels[i+1]
		}
		if found {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	require.Fail(t, "there is no such metric", "%s %s", name, labels)
	return 0
}

// A daemon that is killed when a token was issued and nobody has it is followed
// by one that takes over at once.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	before := w.token(0)
	w.dueAtStart("job-0")
	w.fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Stall})
	p := w.start().ready()
	p.await("a token", func() bool { return w.fake.Applied("key.rotate") == 1 })
	p.signal(syscall.SIGKILL)
	p.ended()
	require.Equal(t, before, w.token(0), "it was killed too late")

	asked := len(w.fake.Requests())
	begun := time.Now()
	p = w.start()
	p.await("it to take over", func() bool { return len(w.fake.Requests()) > asked })
	taken := time.Since(begun)
	t.Logf("taken over %s after it was started", taken.Round(time.Millisecond))
	assert.Less(t, taken, 3*time.Second)
	p.ready().rotated([]string{before}, 0)
	require.Equal(t, 2, w.fake.Applied("key.rotate"), "one token was issued, and one burnt")
	p.stop()
}

// A signal lets steps end; a second cancels them.
func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("graceful", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		before := w.token(0)
		w.dueAtStart("job-0")
		w.fake.Inject(keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Slow, Delay: 2 * time.Second})
		p := w.start().ready()
		p.await("the call", func() bool { return w.fake.Count("key.rotate") == 1 })
		p.signal(syscall.SIGTERM)
		p.await("it not to be ready", func() bool { code, _, _ := p.get("/readyz"); return code == http.StatusServiceUnavailable })
		code, _, body := p.get("/healthz")
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "ok\n", body)
		require.Zero(t, p.ended(), p.log.String())
		require.NotEqual(t, before, w.token(0), "the step has ended")
	})
	t.Run("second signal", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		w.dueAtStart("job-0")
		w.fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Stall})
		p := w.start("--grace", "50s").ready()
		p.await("the call", func() bool { return w.fake.Applied("key.rotate") == 1 })
		begun := time.Now()
		p.signal(syscall.SIGINT)
		p.awaitLog("stopping; a second signal cancels what runs")
		p.signal(syscall.SIGINT)
		require.Equal(t, 3, p.ended(), p.log.String())
		require.Less(t, time.Since(begun), 30*time.Second)
		require.Contains(t, p.log.String(), "steps were cancelled")
		p = w.start().ready() // it goes on
		p.awaitLog(`msg="rotation finished" job=job-0 state=DONE`)
		require.Equal(t, 2, w.fake.Applied("key.rotate"), "one token was issued, and one burnt")
		p.stop()
	})
}

// The file is read again at SIGHUP, and if asked for, when it changes.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.config(1, "")
	p := w.start().ready()
	known := func() float64 {
		n := 0.0
		for _, m := range p.metrics()["keywright_jobs"].GetMetric() {
			n += m.GetGauge().GetValue()
		}
		return n
	}
	require.EqualValues(t, 1, known())
	w.config(3, "")
	p.signal(syscall.SIGHUP)
	p.awaitLog(`msg="the file of the jobs was read again" jobs=3`)
	p.await("the jobs", func() bool { return known() == 3 })

	for _, wrong := range []struct{ more, says string }{
		{"nonsense: 1\nolicy: {}\n", `line=5 where=nonsense`},
		{"seal_key: {env: OTHER}\n", `error="seal_key has changed"`},
		{"journal: database\n", `error="journal has changed"`},
	} {
		w.config(2, wrong.more)
		p.signal(syscall.SIGHUP)
		p.awaitLog(wrong.says)
		require.EqualValues(t, 3, known())
	}
	require.Contains(t, p.log.String(), "line=6 where=olicy", "every problem is told")

	w.config(2, "") // what is gone is forgotten, and what is left is worked
	p.signal(syscall.SIGHUP)
	p.awaitLog(`msg="the file of the jobs was read again" jobs=2`)
	p.await("the jobs", func() bool { return known() == 2 })
	before := []string{w.token(0), w.token(1)}
	st := w.sqlite()
	w.due(st, "job-1")
	require.NoError(t, st.Close())
	p.rotated(before, 1)
	p.stop()

	w.config(1, "") // and at the start
	p = w.start("--reload", "1s").ready()
	p.await("the job", func() bool { return known() == 1 })
	w.config(2, "")
	p.awaitLog(`msg="the file of the jobs was read again" jobs=2`)
	w.write("keywright.yaml", "version: 2\n")
	p.awaitLog("the jobs stay as they are")
	sweeps := func() int { return strings.Count(p.log.String(), "Distributed batch of jobs") }
	now := sweeps()
	p.await("some sweeps", func() bool { return sweeps() >= now+3 }) // as often as the file is looked at
	require.Equal(t, 1, strings.Count(p.log.String(), "where=version"), "what is wrong is told once")
	w.config(1, "")
	p.awaitLog(`msg="the file of the jobs was read again" jobs=1`)
	now = sweeps()
	p.await("some sweeps", func() bool { return sweeps() >= now+3 })
	require.Equal(t, 2, strings.Count(p.log.String(), `msg="the file of the jobs was read again"`))
	p.stop()
}

// A file that is no file any more does not keep the daemon from going on, and
// from stopping.
func TestReload_pipe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	p := w.start("--reload", "1s").ready()
	require.NoError(t, os.Remove(w.path("keywright.yaml")))
	require.NoError(t, syscall.Mkfifo(w.path("keywright.yaml"), 0o600))
	p.signal(syscall.SIGHUP)
	p.awaitLog("is not a regular file")
	p.stop()
}

// Who read the log may be gone: the daemon goes on.
func TestLogGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r, log, err := os.Pipe()
	require.NoError(t, err)
	p := &process{w: w, code: make(chan int, 1), cmd: w.command("--listen", "off", "--token-file", "page-token")}
	p.cmd.Stderr = log
	require.NoError(t, p.cmd.Start())
	defer func() { _ = p.cmd.Process.Kill() }()
	go func() {
		_ = p.cmd.Wait() // the code says it
		p.code <- p.cmd.ProcessState.ExitCode()
	}()
	require.NoError(t, log.Close())
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "rotation worker started") {
	}
	require.NoError(t, r.Close())
	p.stop() // it says so, to nobody
}

// Connections are bounded: each takes memory and a file that a rotation may need.
func TestCrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	p := w.start().ready()
	closed := 0
	var all []net.Conn
	for range 300 {
		conn, err := net.Dial("tcp", p.addr)
		require.NoError(t, err)
		all = append(all, conn)
	}
	for _, conn := range all {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			closed++
		}
	}
	require.GreaterOrEqual(t, closed, 300-256)
	require.Less(t, closed, 300)
	for _, conn := range all {
		require.NoError(t, conn.Close())
	}
	p.await("an answer", func() bool { code, _, _ := p.get("/readyz"); return code == http.StatusOK })
	p.stop()
}

// A ConfigMap of Kubernetes, whose files change all at once, is read again.
func TestConfigMap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	require.NoError(t, os.Mkdir(w.path("config"), 0o755))
	publish := func(version string, pairs int) {
		w.config(pairs, "journal: database\n")
		b, err := os.ReadFile(w.path("keywright.yaml"))
		require.NoError(t, err)
		require.NoError(t, os.Mkdir(w.path("config/.."+version), 0o755))
		text := strings.ReplaceAll(string(b), "token-", w.path("token-"))
		require.NoError(t, os.WriteFile(w.path("config/.."+version+"/keywright.yaml"), []byte(text), 0o644))
		require.NoError(t, os.Symlink(".."+version, w.path("config/..data_tmp")))
		require.NoError(t, os.Rename(w.path("config/..data_tmp"), w.path("config/..data")))
	}
	publish("1", 1)
	require.NoError(t, os.Symlink("..data/keywright.yaml", w.path("config/keywright.yaml")))
	p := w.start("--config", "config/keywright.yaml", "--database", "state/keywright.db", "--reload", "1s").ready()
	publish("2", 2)
	p.awaitLog(`msg="the file of the jobs was read again" jobs=2`)
	st, err := store.OpenSQLite(t.Context(), w.path("state/keywright.db"))
	require.NoError(t, err)
	before := []string{w.token(0), w.token(1)}
	w.due(st, "job-1")
	require.NoError(t, st.Close())
	p.rotated(before, 1)
	p.stop()
	require.FileExists(t, w.path("state/keywright.seal"), "it is beside the database")
}

// Page and metrics are for this machine, or for who has the token; health is for
// everybody.
func TestDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	t.Run("loopback", func(t *testing.T) {
		w := newWorld(t, 1)
		p := w.start().ready()
		for _, host := range []string{"localhost", "localhost:8477", "127.0.0.9:1", "[::1]:8477", "[::1]"} {
			for _, path := range []string{"/", "/metrics", "/healthz"} {
				code, _, _ := p.get(path, withHost(host))
				require.Equal(t, http.StatusOK, code, "%s %s", host, path)
			}
		}
		for _, host := range []string{"evil.example", "evil.example:8477", "localhost.evil.example", "10.0.0.1", ""} {
			for _, path := range []string{"/", "/metrics", "/keys/job-0"} {
				code, _, body := p.get(path, withHost(host))
				if host == "" {
					continue // the client puts the address there
				}
				require.Equal(t, http.StatusMisdirectedRequest, code, "%s %s", host, path)
				require.NotContains(t, body, "job-0")
			}
			code, _, _ := p.get("/healthz", withHost(host))
			require.Equal(t, http.StatusOK, code)
		}
		p.stop()
	})
	t.Run("token", func(t *testing.T) {
		p := w.start("--listen", "0.0.0.0:0", "--token-file", "page-token").ready()
		p.addr = strings.Replace(p.addr, "[::]", "127.0.0.1", 1)
		for _, path := range []string{"/", "/metrics", "/keys/job-0"} {
			for _, edit := range []func(*http.Request){
				func(*http.Request) {},
				func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+pageToken+"x") },
				func(r *http.Request) { r.Header.Set("Authorization", "Bearer") },
				func(r *http.Request) { r.SetBasicAuth(pageToken, "") },
				func(r *http.Request) { r.SetBasicAuth("", "wrong") },
				func(r *http.Request) { r.URL.RawQuery = "token=" + pageToken },
			} {
				code, header, body := p.get(path, edit)
				require.Equal(t, http.StatusUnauthorized, code, path)
				require.Equal(t, `Basic realm="keywright", charset="UTF-8"`, header.Get("WWW-Authenticate"))
				require.NotContains(t, body, "job-0")
			}
			for _, edit := range []func(*http.Request){withToken, func(r *http.Request) { r.SetBasicAuth("anybody", pageToken) }} {
				code, _, body := p.get(path, edit, withHost("rotator.example"))
				require.Equal(t, http.StatusOK, code, path)
				require.Contains(t, body, "job-0")
			}
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			code, _, body := p.get(path)
			require.Equal(t, http.StatusOK, code)
			require.Equal(t, "ok\n", body)
		}
		p.stop()
	})
	t.Run("off", func(t *testing.T) {
		p := w.start("--listen", "off", "--log-format", "json", "--log-level", "info", "--worker-id", strings.Repeat("é", 50)) // as long as may be
		p.awaitLog(`"msg":"rotation worker started"`)
		require.Contains(t, p.log.String(), `"listen":"off"`)
		p.stop()
		for line := range strings.Lines(p.log.String()) {
			require.True(t, json.Valid([]byte(line)), line)
			require.NotContains(t, line, "DEBUG")
		}
	})
}

// While another process works the SQLite database, a second does not begin.
func TestSecond(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	p := w.start().ready()
	code, _, said := w.run("--listen", "off")
	require.Equal(t, 1, code, said)
	require.Contains(t, said, "another keywright-rotator works "+w.path("keywright.db"))
	q := w.command("--listen", p.addr, "--database", "other/x.db")
	w.config(1, "journal: database\n")
	b, err := q.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(b), "address already in use")
	require.Contains(t, string(b), "give another --listen")
	p.stop()
}

// Ten thousand keys are told in one scrape.
func TestTenThousand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	st := w.sqlite()
	const many = 10_000
	rows := make([]store.Schedule, many)
	for i := range rows {
		rows[i] = store.Schedule{Job: "key-" + strconv.Itoa(i), Due: time.Now().Add(time.Hour), Spec: spec(t), Owner: "w2"}
	}
	require.NoError(t, st.Put(t.Context(), rows...))
	require.NoError(t, st.Close())
	p := w.start().ready()
	begun := time.Now()
	m := p.metrics()
	t.Logf("%d keys were told in %s, by a process of %.0f MB", many, time.Since(begun).Round(time.Millisecond), m.value(t, "process_resident_memory_bytes")/1e6)
	require.Len(t, m["keywright_key_due_seconds"].GetMetric(), many+1)
	require.EqualValues(t, many, m.value(t, "keywright_jobs_blocked"))
	require.Less(t, strings.Count(p.log.String(), "\n"), 200, "the log does not grow with the keys")
	p.stop()
}

// While the database is away the daemon lives, is not ready, and says so; when it
// is back all goes on.
func TestAway(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	w := newWorld(t, 1)
	w.write("seal", strings.Repeat("0123456789abcdef", 4)+"\n")
	w.config(1, "journal: database\nseal_key: {file: seal}\n")
	database := server.Database(t)
	p := w.start("--database", database).ready()
	server.Crash(t)
	p.await("it not to be ready", func() bool { code, _, _ := p.get("/readyz"); return code == http.StatusServiceUnavailable })
	code, _, body := p.get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "not ok\n", body)
	code, _, _ = p.get("/healthz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, http.StatusServiceUnavailable, func() int { code, _, _ := p.get("/"); return code }())
	p.await("an error", func() bool { return p.metrics().value(t, "keywright_scrape_errors_total") > 0 })
	require.Nil(t, p.metrics()["keywright_jobs"])
	server.Start(t)
	p.await("it to be ready", func() bool { code, _, _ := p.get("/readyz"); return code == http.StatusOK })
	p.await("its keys", func() bool { return p.metrics()["keywright_jobs"] != nil })
	st, err := store.OpenPostgres(t.Context(), database)
	require.NoError(t, err)
	before := []string{w.token(0)}
	w.due(st, "job-0")
	require.NoError(t, st.Close())
	p.rotated(before, 0)
	p.stop()
}
