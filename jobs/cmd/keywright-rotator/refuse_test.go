//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

func TestHelp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for name, args := range map[string][]string{
		"help.txt": {"--help"}, "help-check.txt": {"check", "--help"}, "help-move.txt": {"help", "move"}, "help-version.txt": {"version", "--help"},
		"help-trigger.txt": {"trigger", "--help"}, "help-rollback.txt": {"rollback", "--help"}, "help-forget.txt": {"forget", "--help"},
	} {
		code, out, said := w.run(args...)
		require.Zero(t, code)
		require.Empty(t, said)
		golden(t, name, out)
		for line := range strings.Lines(out) {
			require.LessOrEqual(t, len(strings.TrimRight(line, "\n")), 110, line)
		}
	}
	code, out, said := w.run("version")
	require.Zero(t, code)
	require.Empty(t, said)
	require.Equal(t, "keywright-rotator 0.1.0, "+runtime.Version()+", "+runtime.GOOS+"/"+runtime.GOARCH+"\n", out)
}

// A command line that is wrong is refused before anything is begun, without
// what was given.
func TestBadFlags(t *testing.T) {
	t.Parallel()
	const canary = "canary-flag-0123456789"
	w := newWorld(t, 1)
	w.secrets = append(w.secrets, canary)
	require.NoError(t, syscall.Mkfifo(w.path("pipe"), 0o600))
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--lisen", "off"}, "unknown flag --lisen; did you mean --listen?"},
		{[]string{"--token", canary}, "unknown flag --token; a secret is never taken from the command line"},
		{[]string{"--password=" + canary}, "unknown flag --password; a secret is never taken from the command line"},
		{[]string{"--" + canary}, "unknown flag\n"},
		{[]string{"-x"}, "unknown flag\n"},
		{[]string{canary}, "takes no arguments (the extra one is not shown)\n"},
		{[]string{"chek"}, "did you mean check?"},
		{[]string{"check", canary}, "takes no arguments"},
		{[]string{"move", canary}, "takes no arguments"},
		{[]string{"move"}, "want one of --from and --from-file"},
		{[]string{"move", "--from", "a", "--from-file", "b"}, "want one of --from and --from-file"},
		{[]string{"move", "--from", "not-there"}, "is not there"},
		{[]string{"move", "--from", "postgres://u:" + canary + "@h/d"}, "--from holds a password"},
		{[]string{"--database"}, "--database: needs a value"},
		{[]string{"--database", ""}, "--database: must not be empty"},
		{[]string{"--config", ""}, "--config: must not be empty"},
		{[]string{"--token-file="}, "--token-file: must not be empty"},
		{[]string{"check", "--database-file", ""}, "--database-file: must not be empty"},
		{[]string{"move", "--from", ""}, "--from: must not be empty"},
		{[]string{"trigger", "job-0", "--worker-id", ""}, "--worker-id: must not be empty"},
		{[]string{"--database", "postgres://u:" + canary + "@h/d"}, "--database holds a password"},
		{[]string{"--database", "host=h password=" + canary}, "--database holds a password"},
		{[]string{"--database", "postgres://h/d?sslpassword=" + canary}, "--database holds a password"},
		{[]string{"--database", "mysql://" + canary}, "--database: want the path of a SQLite file, or postgres://"},
		{[]string{"--database", "postgres//u:" + canary + "@h/d"}, "--database: want the path of a SQLite file, or postgres://"},
		{[]string{"--database", "Postgres:u:" + canary + "@h/d"}, "--database: want the path of a SQLite file, or postgres://"},
		{[]string{"--database", "x.db", "--database-file", "y"}, "exclude each other"},
		{[]string{"--database-file", "page-token"}, "--database-file: want postgres://user:password@host:port/database"},
		{[]string{"--database-file", "pgpass"}, "--database-file: want postgres://user:password@host:port/database"},
		{[]string{"check", "--database-file", "pgpass"}, "--database-file: want postgres://user:password@host:port/database"},
		{[]string{"move", "--from-file", "pgpass"}, "--from-file: want postgres://user:password@host:port/database"},
		{[]string{"--database-file", "not-there"}, "is not there"},
		{[]string{"--database-file", "/dev/null"}, "is not a regular file"},
		{[]string{"--database-file", "empty"}, "is empty"},
		{[]string{"--database-file", "open"}, "lets everybody in; run: chmod o-rwx open"},
		{[]string{"--concurrency", canary}, "--concurrency: want a whole number"},
		{[]string{"--concurrency", "0"}, "--concurrency: want 1 to 1000"},
		{[]string{"--rate", canary}, "--rate: want PROVIDER=N"},
		{[]string{"--rate", "riclod=5"}, "did you mean ricloud?"},
		{[]string{"--rate", "ricloud=-1"}, "--rate: want steps per second"},
		{[]string{"--rate", "ricloud=NaN"}, "--rate: want steps per second"},
		{[]string{"--parallel", "ricloud=1.5"}, "--parallel: want steps at a time"},
		{[]string{"--sweep", "1ms"}, "--sweep: want 1s to 24h"},
		{[]string{"--sweep", canary}, "--sweep: want a time"},
		{[]string{"--grace", "0s"}, "--grace: want"},
		{[]string{"--retention", "1m"}, "--retention: want a time of at least 1h"},
		{[]string{"--reload", "1ms"}, "--reload: want 0 or at least 1s"},
		{[]string{"--reload", "-1s"}, "--reload: want 0 or at least 1s"},
		{[]string{"--log-format", canary}, "--log-format: want text or json"},
		{[]string{"--log-level", canary}, "--log-level: want debug, info, warn or error"},
		{[]string{"--worker-id", strings.Repeat("x", 101)}, "--worker-id: want at most 100 bytes"},
		{[]string{"--listen", canary}, "--listen: want HOST:PORT"},
		{[]string{"--worker-id", "a\nb"}, "--worker-id: want"},
		{[]string{"--worker-id", "\xff"}, "--worker-id: want"},
		{[]string{"--listen", "127.0.0.1:65536"}, "--listen: want HOST:PORT"},
		{[]string{"--listen", "127.0.0.1:no-such-port"}, "--listen: want HOST:PORT"},
		{[]string{"--listen", "0.0.0.0:0"}, "page and metrics need a token"},
		{[]string{"--listen", ":0"}, "page and metrics need a token"},
		{[]string{"--listen", "[::]:0"}, "page and metrics need a token"},
		{[]string{"--listen", "rotator.example:0"}, "page and metrics need a token"},
		{[]string{"--listen", "0.0.0.0:0", "--token-file", "empty"}, "is empty"},
		{[]string{"--listen", "0.0.0.0:0", "--token-file", "short"}, "want a token of at least 16 ASCII characters"},
		{[]string{"--token-file", "spaces"}, "want a token of at least 16 ASCII characters"},
		{[]string{"--token-file", "open"}, "lets everybody in"},
		{[]string{"--config", "not-there.yaml"}, "no such file"},
		{[]string{"--config", "wrong.yaml"}, "line=1"},
		{[]string{"--config", "pipe"}, "is not a regular file"}, // and would be waited for
		{[]string{"check", "--config", "pipe"}, "is not a regular file"},
	} {
		w.write("empty", "\n")
		w.write("short", "short\n")
		w.write("spaces", "a token with spaces\n")
		w.write("open", pageToken)
		w.write("pgpass", "db.example:5432:keywright:u:"+canary+"\n")
		w.write("wrong.yaml", "version: 2\n")
		require.NoError(t, os.Chmod(w.path("open"), 0o644))
		code, out, said := w.run(test.args...)
		assert.Equal(t, 2, code, "%s\n%s", test.args, said)
		assert.Empty(t, out)
		assert.Contains(t, strings.ReplaceAll(said, `\"`, `"`), test.says)
		assert.NoFileExists(t, w.path("keywright.db"))
	}
	w.env = append(w.env, "KEYWRIGHT_DATABASE=mysql://"+canary)
	code, _, said := w.run()
	require.Equal(t, 2, code)
	require.Contains(t, said, "KEYWRIGHT_DATABASE: want the path of a SQLite file")
}

// A database that keywright rotate run would not know of is refused.
func TestTwoJournals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for _, args := range [][]string{
		{"--database", "elsewhere/keywright.db"}, {"--database", "postgres://keywright@127.0.0.1:1/x"}, {"--database", "host=127.0.0.1 port=1"},
	} {
		code, _, said := w.run(args...)
		require.Equal(t, 2, code, said)
		require.Contains(t, said, "keywright rotate run would begin a second journal for the same keys")
		require.Contains(t, said, `do="write journal: database into keywright.yaml"`)
	}
	w.config(1, "journal: database\n")
	code, _, said := w.run("--database", "postgres://keywright@127.0.0.1:1/x")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "seal_key is missing; on PostgreSQL all workers need the same sealing key")
	w.config(1, "journal: database\nseal_key: {file: not-there/seal}\n")
	code, _, said = w.run("--database", "postgres://keywright@127.0.0.1:1/x")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "openssl rand -hex 32 >"+w.path("not-there/seal"))
	w.write("seal", strings.Repeat("0123456789abcdef", 4)+"\n")
	w.secrets = append(w.secrets, strings.Repeat("0123456789abcdef", 4), "canary-password")
	w.config(1, "journal: database\nseal_key: {file: seal}\n")
	w.write("database", "postgres://keywright:canary-password@127.0.0.1:1/x\n")
	code, _, said = w.run("--database-file", "database")
	require.Equal(t, 1, code, said)
	require.Contains(t, said, "127.0.0.1:1")
	w.config(1, "journal: database\nseal_key: {env: SEAL}\n") // the variable is not set
	code, _, said = w.run("--database", "elsewhere/keywright.db")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "SEAL")
	code, _, said = w.run("check", "--database", "elsewhere/keywright.db")
	require.Equal(t, 1, code, said)
	require.Contains(t, said, "SEAL")
}

// What check says, to the letter.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.write("keywright.yaml", `version: 1
ricloud: {url: "`+w.fake.URL()+`", token_file: token-0}
schedule: {every: 30d, jitter: 2h, timezone: Europe/Berlin}
jobs:
  - {name: billing, strategy: ricloud-paired, keys: [1, 2], sinks: [{type: file, path: token-0}]}
  - {name: search, strategy: ricloud-paired, keys: [3, 4], schedule: never, sinks: [{type: file, path: token-1}]}
  - {name: mail, strategy: ricloud-overlap, key: 5, owner: w2, schedule: {before_expiry: 7d}, sinks: [{type: file, path: token-2}]}
  - {name: shop, strategy: ricloud-paired, keys: [7, 8], schedule: {cron: "30 4 1 1 *"}, sinks: [{type: file, path: token-3}]}
`)
	tidy := func(s string) string {
		s = strings.ReplaceAll(s, w.dir, "DIR")
		return regexp.MustCompile(`20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z`).ReplaceAllString(s, "2027-01-01T00:00:00Z")
	}
	code, out, said := w.run("check", "--worker-id", "w1")
	require.Zero(t, code, said)
	require.Empty(t, said)
	golden(t, "check.txt", tidy(out))
	require.NoFileExists(t, w.path("keywright.db"), "it only looks")
	require.Empty(t, w.fake.Requests(), "it sends nothing")

	p := w.start().ready()
	code, out, said = w.run("check", "--worker-id", "w1") // while the daemon works
	require.Zero(t, code, said)
	require.NotContains(t, out, "not there yet")
	require.Contains(t, out, "billing")
	p.stop()

	b, err := os.ReadFile(w.path("keywright.yaml"))
	require.NoError(t, err)
	w.write("keywright.yaml", strings.Replace(string(b), "path: token-3}]", "path: token-3}], acknowledge: {command: [./not-there]}", 1)+
		"  - {name: api, strategy: ricloud-overlap, key: 6, sinks: [{type: exec, name: x, command: [./not-there-either]}]}\n")
	code, out, said = w.run("check", "--worker-id", "w1")
	require.Equal(t, 1, code, out+said)
	golden(t, "check-problems.txt", tidy(said))
}

// What cannot be used is named, and check finds it out as the daemon does.
func TestUnusable(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{
		"keywright.db":   "file is not a database",
		"keywright.seal": "want a sealing key of 64 hexadecimal digits",
	} {
		w := newWorld(t, 1)
		w.write(name, strings.Repeat("garbage ", 100))
		code, out, said := w.run("check")
		require.Equal(t, 1, code, said)
		require.Contains(t, said, w.path(name))
		require.Contains(t, said, says)
		require.Equal(t, name != "keywright.db", strings.Contains(out, "not there yet"))
		code, _, said = w.run("--listen", "off")
		require.Equal(t, 2, code, said)
		require.Contains(t, said, w.path(name))
		require.Contains(t, said, says)
	}
}

// A command that waits for a database ends when it is told to.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	silent, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0") // it takes connections, and says nothing
	require.NoError(t, err)
	defer silent.Close()
	w := newWorld(t, 1)
	w.write("seal", strings.Repeat("0123456789abcdef", 4)+"\n")
	w.config(1, "journal: database\nseal_key: {file: seal}\n")
	for _, args := range [][]string{{"check"}, {"trigger", "job-0"}, {"rollback", "job-0"}} {
		cmd := w.command(append(args, "--database", "postgres://u@"+silent.Addr().String()+"/x")...)
		require.NoError(t, cmd.Start())
		conn, err := silent.Accept()
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // the code says it
		timer.Stop()
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), args[0])
		require.NoError(t, conn.Close())
	}
}

// A job that was refused is not well, whatever its schedule says.
func TestCheckRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.write("token-0", "canary-somebody-elses-token\n")
	w.dueAtStart("job-0")
	p := w.start().ready()
	p.awaitLog("rotation refused")
	code, out, said := w.run("check")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "REFUSED")
	require.Contains(t, out, "tried again")
	require.Contains(t, said, "job-0: REFUSED: ")
	p.stop()
}

// Where it is refused to begin, nothing is made.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	require.NoError(t, os.MkdirAll(w.path(".keywright/job-0"), 0o700))
	w.write(".keywright/job-0/state", "of another time\n")
	code, _, said := w.run("--listen", "off")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "keywright-rotator move")
	require.NoFileExists(t, w.path("keywright.db"))
	code, _, said = w.run("move", "--from", "keywright.yaml")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "is neither a directory nor a SQLite database")
	require.NoFileExists(t, w.path("keywright.yaml.locks"))

	require.NoError(t, os.RemoveAll(w.path(".keywright")))
	require.NoError(t, os.Chmod(w.dir, 0o755))
	code, _, said = w.run("--listen", "off")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "chmod go-rwx "+w.dir)
}
