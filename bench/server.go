//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The provider of the measurements is a process of its own, so that its work
// is not counted as the client's.

const serveVariable = "KEYWRIGHT_BENCH_SERVE"

const totalItems = 1_000_000

const keyJSON = `{"id":%d,"resource":"key","organisation":1,"type":"standard","config":{"publish_source_files":false},"storage_config":2,"webhook_config":2,"token":"%s","state":"active","date_created":"2018-10-01T17:04:34.160171Z","date_expires":null}`

const credentialJSON = `{"id":"c1d2e3f4-0000-4000-8000-%012d","application_id":"82f57141-0000-4000-8000-000000000010","user_id":"u","name":"ci","type":"Token","token":"0123456789abcdef0123456789abcdef","used_amount":0.0,"created_at":"2026-09-01T08:00:00.123456Z","updated_at":"2026-09-01T08:00:00.123456Z"}`

func tokenText(n int64) string {
	return fmt.Sprintf("fake-token-%012d-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", n)
}

// serve answers until its standard input is closed.
func serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var connections, rotations, calls atomic.Int64
	pages := &pageCache{}
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, body []byte) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
	one := fmt.Appendf(nil, keyJSON, 1, tokenText(0))
	mux.HandleFunc("GET /keys/1", func(w http.ResponseWriter, _ *http.Request) { write(w, one) })
	mux.HandleFunc("GET /keys/2", func(w http.ResponseWriter, _ *http.Request) { // one in a hundred fails
		if calls.Add(1)%100 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		write(w, fmt.Appendf(nil, keyJSON, 2, tokenText(0)))
	})
	mux.HandleFunc("POST /keys/1/rotate", func(w http.ResponseWriter, _ *http.Request) {
		write(w, fmt.Appendf(nil, keyJSON, 1, tokenText(rotations.Add(1))))
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		away(r)
		after, err := strconv.Atoi(r.URL.Query().Get("after_id"))
		if err != nil {
			after = totalItems + 1
		}
		if most, err := strconv.Atoi(r.Header.Get("X-Items")); err == nil && after > totalItems {
			after = most + 1
		}
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		write(w, pages.get(after, limit))
	})
	mux.HandleFunc("GET /api/v1/credentials/", func(w http.ResponseWriter, r *http.Request) {
		away(r)
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		var b strings.Builder
		fmt.Fprintf(&b, `{"count":2000,"items":[`)
		for i := range limit {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, credentialJSON, offset+i+1)
		}
		b.WriteString("]}")
		write(w, []byte(b.String()))
	})
	mux.HandleFunc("GET /connections", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(connections.Swap(0))
	})
	srv := &http.Server{Handler: mux, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}}
	fmt.Println(l.Addr())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	return srv.Serve(l)
}

// away holds a request for as long as its sender says the provider is away.
func away(r *http.Request) {
	if d, err := time.ParseDuration(r.Header.Get("X-Away")); err == nil {
		time.Sleep(d)
	}
}

// pageCache builds each page once: the server must not be what is measured.
type pageCache struct{ last atomic.Pointer[page] }

type page struct {
	after, limit int
	body         []byte
}

func (c *pageCache) get(after, limit int) []byte {
	if p := c.last.Load(); p != nil && p.after == after && p.limit == limit {
		return p.body
	}
	b := make([]byte, 0, 360*limit)
	b = append(b, `{"resource":"list","data":[`...)
	id := after - 1
	for i := 0; i < limit && id > 0; i, id = i+1, id-1 {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, keyJSON, id, tokenText(int64(id)))
	}
	b = fmt.Appendf(b, `],"has_more":%v,"total_count":%d,"url":"/keys"}`, id > 0, totalItems)
	c.last.Store(&page{after, limit, b})
	return b
}

// startServer runs this program again as the server.
func startServer() (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serveVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	var addr string
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		return "", nil, err
	}
	return "http://" + addr, func() {
		_ = in.Close()
		_ = cmd.Wait()
	}, nil
}
