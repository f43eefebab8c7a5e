package rotator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

func TestParseDatabase(t *testing.T) {
	t.Parallel()
	for text, postgres := range map[string]bool{
		"postgres://db/x": true, "postgresql://u@db:5432/x?sslmode=require": true, "postgres://": true,
		"host=db dbname=x": true, "dbname = x": true,
		"keywright.db": false, "./a=b/x.db": false, "/var/lib/a b.db": false, "POSTGRES": false,
	} {
		d, err := parseDatabase(text, "--database")
		require.NoError(t, err, text)
		assert.Equal(t, postgres, d.path == "", text)
		if !postgres {
			assert.True(t, filepath.IsAbs(d.path))
		}
	}
	for _, text := range []string{"postgres//u:canary@h/d", "postgresql:canary", "POSTGRES:canary", "mysql://canary", "file:///canary", "canary\nx", "canary\x00"} {
		_, err := parseDatabase(text, "--database")
		require.Error(t, err, "%q", text)
		require.NotContains(t, err.Error(), "canary")
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"postgres://u:p@h/d": true, "postgres://:p@h/d": true, "postgres://h/d?password=p": true, "postgres://h/d?a=b&sslpassword=p": true,
		"host=h password=p": true, "password = p": true, "PASSWORD=p": true, "host=h\tpassword='p'": true,
		"postgres://u@h:5432/d": false, "postgres://h/d?passfile=/x": false, "host=password-db": false, "dbname=x user=password": false,
		"postgres://[::1]:5432/d": false, "/var/lib/password/keywright.db": false,
	} {
		assert.Equal(t, want, passwords.MatchString(text), text)
	}
}

func TestReadSecret(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	for _, test := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{" canary \n", 0o600, ""}, {"canary", 0o440, ""},
		{"canary", 0o604, "lets everybody in"}, {"", 0o600, "is empty"}, {" \n", 0o600, "is empty"},
		{strings.Repeat("canary", 20_000), 0o600, "far too long"},
	} {
		if runtime.GOOS == "windows" && test.mode != 0o600 {
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(test.text), 0o600))
		require.NoError(t, os.Chmod(path, test.mode))
		text, err := readSecret(path, "--token-file")
		if test.want == "" {
			require.NoError(t, err)
			require.Equal(t, "canary", text)
			continue
		}
		require.ErrorContains(t, err, test.want)
		require.NotContains(t, err.Error(), "canary")
		require.Equal(t, exitUsage, codeOf(err))
	}
	_, err := readSecret(filepath.Dir(path), "--token-file")
	require.ErrorContains(t, err, "is not a regular file")
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for want, errs := range map[int][]error{
		exitDone:    {nil},
		exitFailed:  {errors.New("x"), startError(jobs.ErrWorkerID, database{}), context.Canceled, rotation.ErrBusy},
		exitUsage:   {&usageError{reason: "x"}, fmt.Errorf("%w", &jobfile.Error{Problems: []jobfile.Problem{{}}}), &keywright.ConfigError{}, rotation.ErrJournal, errors.Join(&usageError{}, errors.New("x"))},
		exitUnknown: {errors.Join(&coded{errors.New("x"), exitUnknown}, errors.New("y"))},
	} {
		for _, err := range errs {
			assert.Equal(t, want, codeOf(err), "%v", err)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	a := &app{err: &b}
	require.Equal(t, exitUsage, a.report(&usageError{reason: "one\ntwo \x1b[31m\u202e", next: "do this\n"}))
	require.Equal(t, "keywright-rotator: one\nkeywright-rotator: two \uFFFD[31m\uFFFD\n  do this\uFFFD\n", b.String())
	b.Reset()
	a.report(errors.New("failed:\n\tone\n\n\ttwo"))
	require.Equal(t, "keywright-rotator: failed:\nkeywright-rotator: one\nkeywright-rotator: two\n", b.String())
	b.Reset()
	require.Equal(t, exitFailed, a.report(&loggedError{errors.New("the log has it")}))
	require.Empty(t, b.String())
}

func TestOfJobs(t *testing.T) {
	t.Parallel()
	job := fmt.Errorf("%w: a: %w", jobs.ErrJob, errors.New("cron"))
	owner := fmt.Errorf("%w: b", jobs.ErrOwner)
	away := errors.New("away")
	for _, err := range []error{job, owner, errors.Join(job, owner), errors.Join(errors.Join(owner), job)} {
		assert.True(t, ofJobs(err), err)
	}
	for _, err := range []error{away, errors.Join(job, away), errors.Join(errors.Join(owner, away), job), fmt.Errorf("x: %w", away)} {
		assert.False(t, ofJobs(err), err)
	}
}

// A database that does not answer does not keep the process from ending.
func TestWithin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		defer close(hangs)
		err := within(time.Minute, func() error { <-hangs; return nil })
		require.ErrorContains(t, err, "does not answer")
		require.Equal(t, exitUnknown, codeOf(err))
		require.NoError(t, within(time.Minute, func() error { return nil }))
	})
}

func TestQuoted(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"keywright.yaml": "keywright.yaml", "/a/b-c_d.x": "/a/b-c_d.x", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'",
		"postgres://u@h/d?x=%2Ftmp": "'postgres://u@h/d?x=%2Ftmp'",
	} {
		assert.Equal(t, want, quoted(word))
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	var f daemonFlags
	c := &cobra.Command{}
	f.add(c.Flags())
	require.NoError(t, c.ParseFlags([]string{"--rate", "ricloud=0.5", "--parallel=ricloud=3", "--parallel", "acedata=0"}))
	require.NoError(t, f.check())
	require.Equal(t, map[string]jobs.Limit{
		"ricloud": {Concurrency: 3, PerSecond: 0.5},
		"acedata": {Concurrency: 0, PerSecond: jobs.DefaultLimit.PerSecond},
	}, f.limits())
	require.Equal(t, "acedata=0,ricloud=3", f.parallel.String())
	require.Equal(t, "90d", f.retention.String())
	require.NoError(t, f.retention.Set("36h"))
	require.Equal(t, "36h0m0s", f.retention.String())
	require.Error(t, f.retention.Set("never"))
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	require.Equal(t, now.Add(-36*time.Hour), retentionOf(f.retention, now).Before)
}

// The providers that have limits are those that job files have.
func TestProviders(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range reflect.TypeFor[jobfile.File]().NumField() {
		field := reflect.TypeFor[jobfile.File]().Field(i)
		if tag := field.Tag.Get("yaml"); field.Type.Kind() == reflect.Struct && tag != "policy" && tag != "schedule" {
			names = append(names, tag)
		}
	}
	require.ElementsMatch(t, providers, names)
}

// The first signal stops, the second cancels, the third ends the process.
func TestSignals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		codes := make(chan int, 1)
		a := &app{signals: signals, exit: func(code int) { codes <- code }}
		stop, hard, hangup, end := a.watch(t.Context(), slog.New(slog.DiscardHandler))
		for range 3 {
			signals <- syscall.SIGHUP
		}
		synctest.Wait()
		<-hangup
		require.Empty(t, hangup, "one is enough")
		require.NoError(t, stop.Err())
		signals <- os.Interrupt
		synctest.Wait()
		require.Error(t, stop.Err())
		require.NoError(t, hard.Err())
		signals <- syscall.SIGTERM
		synctest.Wait()
		require.Error(t, hard.Err())
		require.Empty(t, codes)
		signals <- syscall.SIGTERM
		require.Equal(t, exitInterrupted, <-codes)
		end()
	})
}
