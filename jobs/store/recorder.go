package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/rotation"
)

// Limits of a recorder.
const (
	recorderBuffer  = 4096 // events that wait to be written
	recorderBatch   = 200  // events in one transaction
	recorderTimeout = 5 * time.Second
	recorderWait    = time.Second // after a failure
)

// Recorder writes an engine's events to the history, in the background, in
// the order in which they came.
//
//	recorder := s.Recorder()
//	defer recorder.Close(ctx)
//	engine, err := rotation.Open("", rotation.WithJournal(j), rotation.WithObserver(recorder.Observe))
type Recorder struct {
	store *Store
	wake  chan struct{} // has room for one
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	waiting []Event
	lost    int // that had no room
	closed  bool
	idle    chan struct{} // closed when nothing waits any more; nil if nobody asks
	busy    bool          // a batch is being written
}

// Recorder returns a new recorder. It must be closed.
func (s *Store) Recorder() *Recorder {
	ctx, cancel := context.WithCancel(s.background)
	r := &Recorder{store: s, wake: make(chan struct{}, 1), stop: cancel, ended: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		cancel()
		close(r.ended)
		return r
	}
	s.running.Go(func() { r.run(ctx) })
	return r
}

// Observe is for [rotation.WithObserver]. It never waits for the database and
// never fails: an event is put into memory. If 4096 wait there, because the
// database is away, further ones are dropped, and counted in an event of kind
// [KindLost]. What was not written when the process dies is lost; the audit
// trail has every change of state.
func (r *Recorder) Observe(e rotation.Event) {
	v := EventOf(e, time.Now())
	r.mu.Lock()
	if r.closed || len(r.waiting) >= recorderBuffer {
		r.lost++
	} else {
		r.waiting = append(r.waiting, v)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Flush waits until what was observed before is written, or ctx ends.
func (r *Recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	if len(r.waiting) == 0 && !r.busy && r.lost == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-r.ended:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("store: events are not written yet: %w", ctx.Err())
	}
}

// Close writes what waits, or gives up when ctx ends; the error says so.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	var err error
	if !again {
		err = r.Flush(ctx)
	}
	r.stop()
	<-r.ended
	return err
}

// run writes events until ctx ends.
func (r *Recorder) run(ctx context.Context) {
	defer close(r.ended)
	for {
		batch := r.take()
		if batch == nil {
			select {
			case <-ctx.Done():
				return
			case <-r.wake:
			}
			continue
		}
		for {
			once, cancel := context.WithTimeout(ctx, recorderTimeout)
			err := r.store.AddEvent(once, batch...)
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				r.store.log.Warn("store: events were not written", "count", len(batch), "error", err)
				return
			}
			r.store.log.Warn("store: events are not written yet", "count", len(batch), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(recorderWait):
			}
		}
	}
}

// take returns the next events, nil if there are none.
func (r *Recorder) take() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.waiting), recorderBatch)
	batch := r.waiting[:n:n]
	r.waiting = r.waiting[n:]
	if r.lost > 0 && len(r.waiting) == 0 {
		batch = append(batch, Event{Kind: KindLost, At: time.Now(), Text: fmt.Sprintf("%d events were not written", r.lost)})
		r.lost = 0
	}
	r.busy = len(batch) > 0
	if !r.busy {
		r.waiting = nil
		if r.idle != nil {
			close(r.idle)
			r.idle = nil
		}
		return nil
	}
	return batch
}
