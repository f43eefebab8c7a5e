// Package pgtest starts a PostgreSQL server for tests: a real one, with its
// data in a directory of its own, reached through a Unix socket there, so that
// it takes no port and meets no other server.
//
// It needs the programs of PostgreSQL; where they are not installed, tests
// that ask for a server are skipped. A server that runs as root refuses to
// start, so a test that runs as root starts it as the user postgres.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// shared is the server of this test binary. It stops when the last test that
// uses it is over, and starts again for the next.
var shared struct {
	sync.Mutex
	server *Server
	users  int
}

// Start returns the URL of a fresh, empty database on this test binary's
// server. The database is dropped at the test's end, and the server stops when
// no test uses it any more.
func Start(tb testing.TB) string {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		shared.server = launch(tb)
	}
	shared.users++
	server := shared.server
	tb.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 {
			server.remove(tb)
			shared.server = nil
		}
	})
	return server.Database(tb)
}

// Hold keeps the shared server running until the test is over, so that tests
// that follow each other do not start it anew. It does nothing where there is
// no PostgreSQL.
func Hold(tb testing.TB) {
	tb.Helper()
	if _, err := programs(); err == nil {
		Start(tb)
	}
}

// New starts a server for one test alone, which may stop it. It ends with the
// test.
func New(tb testing.TB) *Server {
	tb.Helper()
	s := launch(tb)
	tb.Cleanup(func() { s.remove(tb) })
	return s
}

// Server is a PostgreSQL server.
type Server struct {
	bin, dir string
	attr     *syscall.SysProcAttr
	names    atomic.Int64

	mu   sync.Mutex
	proc *os.Process
	done chan struct{} // closed when proc has ended
}

// programs returns the directory of the newest PostgreSQL that is installed.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.Sort(found)
	slices.Reverse(found)
	if path, err := exec.LookPath("postgres"); err == nil {
		found = append(found, path)
	}
	for _, path := range found {
		dir := filepath.Dir(path)
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("PostgreSQL is not installed")
}

// launch makes a server and starts it.
func launch(tb testing.TB) *Server {
	tb.Helper()
	bin, err := programs()
	if err != nil {
		tb.Skip("pgtest: " + err.Error())
	}
	if runtime.GOOS == "windows" {
		tb.Skip("pgtest: there is no Unix socket")
	}
	uid, gid := -1, -1
	if os.Geteuid() == 0 {
		who, err := user.Lookup("postgres")
		if err != nil {
			tb.Skip("pgtest: PostgreSQL does not run as root, and there is no user postgres")
		}
		uid, _ = strconv.Atoi(who.Uid)
		gid, _ = strconv.Atoi(who.Gid)
	}
	dir, err := os.MkdirTemp("", "kwpg-") // short: the socket's path has a limit
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	s := &Server{bin: bin, dir: dir, attr: attributes(uid, gid)}
	if uid >= 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			s.remove(tb)
			tb.Fatalf("pgtest: %v", err)
		}
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = dir, s.attr
	if out, err := cmd.CombinedOutput(); err != nil {
		s.remove(tb)
		tb.Fatalf("pgtest: initdb: %v\n%s", err, out)
	}
	if err := s.start(); err != nil {
		s.remove(tb)
		tb.Fatalf("pgtest: %v", err)
	}
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// start runs the server until it is stopped, or this process ends.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return errors.New("it is running")
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off",
		"-c", "shared_buffers=16MB", "-c", "max_connections=200", "-c", "max_wal_size=64MB")
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = s.dir, s.attr, log, log
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The server gets a signal when the thread that started it ends.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(done)
	}()
	if err := <-started; err != nil {
		return err
	}
	s.proc, s.done = cmd.Process, done
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-done:
			err = errors.New("the server has ended")
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
			continue
		}
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return fmt.Errorf("%w\n%s", err, text)
	}
}

// end sends a signal to the server and waits until it has ended.
func (s *Server) end(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	if err := s.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		_ = s.proc.Kill()
		<-s.done
	}
	s.proc = nil
	return nil
}

func (s *Server) remove(tb testing.TB) {
	tb.Helper()
	if err := errors.Join(s.end(syscall.SIGQUIT), os.RemoveAll(s.dir)); err != nil {
		tb.Errorf("pgtest: %v", err)
	}
}

// Stop shuts the server down, which ends every connection.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	if err := s.end(os.Interrupt); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
}

// Crash ends the server at once, without a shutdown: it recovers at the next
// start.
func (s *Server) Crash(tb testing.TB) {
	tb.Helper()
	if err := s.end(syscall.SIGQUIT); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
}

// Start starts a server again that was stopped, with its data.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.start(); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
}

func (s *Server) url(database string) string {
	return "postgres://postgres@/" + database + "?host=" + url.QueryEscape(s.dir)
}

// Database makes an empty database and returns its URL. It is dropped at the
// test's end if the server runs.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := "t" + strconv.FormatInt(s.names.Add(1), 10)
	if err := s.exec("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		s.mu.Lock()
		running := s.proc != nil
		s.mu.Unlock()
		if running {
			_ = s.exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)")
		}
	})
	return s.url(name)
}

func (s *Server) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
