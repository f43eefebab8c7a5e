package rotator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/loopback"
	"github.com/keywright/keywright/jobs/page"
)

// door is where and to whom the page is shown.
type door struct {
	address string           // empty: nowhere
	token   keywright.Secret // zero: to this machine alone
}

// shortestToken is how long a token must be at least.
const shortestToken = 16

// doorOf reads the flags. Beyond this machine a token is needed.
func doorOf(listen, tokenFile string) (door, error) {
	if listen == "" || listen == "off" {
		return door{}, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return door{}, &usageError{reason: "--listen: want HOST:PORT, such as " + defaultListen + ", or off"}
	}
	d := door{address: listen}
	if tokenFile == "" {
		if !loopback.Is(host) {
			return door{}, &usageError{
				reason: "--listen is not of this machine alone, so that page and metrics need a token",
				next:   "give a file with the token: --token-file FILE; openssl rand -hex 32 makes one",
			}
		}
		return d, nil
	}
	text, err := readSecret(tokenFile, "--token-file")
	if err != nil {
		return door{}, err
	}
	if len(text) < shortestToken || !visible(text) {
		return door{}, &usageError{reason: fmt.Sprintf("--token-file: want a token of at least %d ASCII characters without spaces", shortestToken)}
	}
	d.token = keywright.NewSecret(text)
	return d, nil
}

// visible reports whether a text is ASCII without spaces.
func visible(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b >= 0x7f {
			return false
		}
	}
	return true
}

// server serves page, metrics and health.
type server struct {
	http     *http.Server
	listener net.Listener
	ended    chan error
}

// listen takes the address. Nothing is answered yet.
func (d *daemon) listen(at door, all []prometheus.Collector) (*server, error) {
	opts := []page.Option{page.WithLogger(d.log)}
	if !at.token.IsZero() {
		opts = append(opts, page.WithToken(at.token))
	}
	status, err := page.New(d.runner, d.store, opts...)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	all = append(all, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	errorLog := slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)
	exposition := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 20 * time.Second,
	})
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", at.address)
	if err != nil {
		return nil, &coded{&usageError{reason: "--listen: " + err.Error(), next: "give another --listen, or stop what has that address"}, exitFailed}
	}
	if addr, ok := listener.Addr().(*net.TCPAddr); at.token.IsZero() && (!ok || !addr.IP.IsLoopback()) {
		return nil, errors.Join(&usageError{reason: "--listen names an address that is not of this machine alone, so that page and metrics need --token-file"}, listener.Close())
	}
	health := &health{daemon: d}
	routes := map[string]http.Handler{
		"/healthz": readOnly(http.HandlerFunc(health.live)),
		"/readyz":  readOnly(http.HandlerFunc(health.ready)),
		"/metrics": readOnly(page.Guard(at.token, exposition)),
	}
	return &server{
		listener: listener, ended: make(chan error, 1),
		http: &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if h, ok := routes[r.URL.Path]; ok {
					h.ServeHTTP(w, r)
					return
				}
				status.ServeHTTP(w, r)
			}),
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
			IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: errorLog, ConnState: bounded(mostConns),
		},
	}, nil
}

// mostConns is how many connections there are at a time.
const mostConns = 256

// bounded closes connections that are too many as they come: each takes memory,
// and a file that a rotation may need.
func bounded(most int64) func(net.Conn, http.ConnState) {
	var n atomic.Int64
	return func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if n.Add(1) > most {
				_ = c.Close() // which it is about to find out
			}
		case http.StateClosed, http.StateHijacked:
			n.Add(-1)
		}
	}
}

// address is where the server is.
func (s *server) address() string { return s.listener.Addr().String() }

// serve answers from now on. The channel has the error that ends it.
func (s *server) serve() <-chan error {
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.ended <- err
		}
	}()
	return s.ended
}

// close lets requests that are under way end.
func (s *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // somebody reads slowly
		err = s.http.Close()
	}
	if closeErr := s.listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return err
}

// health tells whether the daemon works, and nothing else.
type health struct {
	daemon *daemon

	mu    sync.Mutex
	asked time.Time // when the database was asked last
	up    bool      // what it said
}

// live answers whether the process is of any use.
func (h *health) live(w http.ResponseWriter, _ *http.Request) {
	d := h.daemon
	say(w, !d.started.Load() || d.stopping.Load() || d.runner.Running())
}

// ready answers whether rotations are worked on.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	d := h.daemon
	say(w, d.started.Load() && !d.stopping.Load() && d.runner.Running() && h.database(r.Context()))
}

// database reports whether the database answers. It is asked once in a second,
// whoever wants to know.
func (h *health) database(ctx context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.asked.IsZero() && time.Since(h.asked) < time.Second {
		return h.up
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	h.up = h.daemon.store.Ping(ctx) == nil
	h.asked = time.Now()
	return h.up
}

func say(w http.ResponseWriter, ok bool) {
	status, text := http.StatusOK, "ok\n"
	if !ok {
		status, text = http.StatusServiceUnavailable, "not ok\n"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // who asked may be gone
}
