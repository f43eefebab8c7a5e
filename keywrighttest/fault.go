package keywrighttest

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Moment says when a fault happens.
type Moment int

// Moments of a request.
const (
	// BeforeApply: the request is read, and nothing is changed.
	BeforeApply Moment = iota
	// AfterApply: the change has taken effect, and the answer goes wrong.
	AfterApply
	// LateApply: the fault happens first, and the change takes effect
	// afterwards, by Fault.Delay.
	LateApply
)

// Action is what goes wrong.
type Action int

// Actions of a fault.
const (
	// Answer sends Fault.Status, Fault.Header and Fault.Body in place of the
	// real answer. Zero fields keep what the real answer has.
	Answer Action = iota
	// Drop closes the connection without an answer.
	Drop
	// Reset closes the connection with a TCP reset.
	Reset
	// Stall sends nothing until the client gives up.
	Stall
	// Cut sends the status, the headers and half of the body, and closes the
	// connection.
	Cut
	// Drip sends the headers and then one byte of the body a second.
	Drip
	// Slow answers as if nothing were wrong, after Fault.Delay.
	Slow
	// Twice answers as if nothing were wrong, but the request arrives a second
	// time right after, as from a proxy that sends it again.
	Twice
)

// Fault is something that goes wrong with requests of one operation.
type Fault struct {
	Op     string        // operation, such as "key.rotate"; empty: every one
	When   Moment        // before or after the change
	Do     Action        // what goes wrong
	Status int           // for Answer
	Header http.Header   // for Answer; these replace headers of the same name
	Body   string        // for Answer; empty with a Status: an empty body
	Delay  time.Duration // for Slow and LateApply
	Times  int           // how many requests; 0: one, negative: all from now on

	// Edit, for Answer, changes the body that would have been sent.
	Edit func(body []byte) []byte
}

// Retry returns a Fault that answers status with a Retry-After header.
func Retry(op string, status int, after string) Fault {
	h := http.Header{"Retry-After": {after}}
	if after == "" {
		h = nil
	}
	return Fault{Op: op, Do: Answer, Status: status, Header: h, Body: `{}`}
}

// Inject makes coming requests go wrong, in the order of the calls.
func (s *server) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range faults {
		f := faults[i]
		if f.Times == 0 {
			f.Times = 1
		}
		s.faults = append(s.faults, &f)
	}
}

// ClearFaults forgets the faults that are still to come.
func (s *server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFault returns the fault for a request, or nil.
func (s *server) takeFault(op string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.Op != "" && f.Op != op {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return f
	}
	return nil
}

// perform carries out a fault whose real answer would be a. It does not
// return where the connection is to be broken.
func (f *Fault) perform(w http.ResponseWriter, r *http.Request, a answer) {
	switch f.Do {
	case Answer:
		f.apply(&a)
		a.write(w)
	case Twice:
		a.write(w)
	case Slow:
		if wait(r.Context(), f.Delay) {
			a.write(w)
		}
	case Stall:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Drop:
		panic(http.ErrAbortHandler)
	case Reset:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
			return
		}
		panic(http.ErrAbortHandler) // HTTP/2 resets the stream
	case Cut:
		a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
		a.head(w)
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case Drip:
		a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
		a.head(w)
		for i := range a.body {
			_, _ = w.Write(a.body[i : i+1])
			_ = http.NewResponseController(w).Flush()
			if !wait(r.Context(), time.Second) {
				panic(http.ErrAbortHandler)
			}
		}
	}
}

// apply changes an answer as an Answer fault says.
func (f *Fault) apply(a *answer) {
	if f.Status != 0 {
		a.status, a.body = f.Status, []byte(f.Body)
	} else if f.Body != "" {
		a.body = []byte(f.Body)
	}
	if f.Edit != nil {
		a.body = f.Edit(a.body)
	}
	for name, values := range f.Header {
		a.header[http.CanonicalHeaderKey(name)] = values
	}
}

// wait reports whether d has passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
