package jobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keywright/keywright/jobs/store"
)

// ErrLate: a request was not sent, because its step's time was over or its job
// was another worker's.
var ErrLate = errors.New("jobs: not sent")

// Guard keeps a worker that was paused from sending what is no longer its to
// send. It is for keywright.WithMiddleware, in every client whose calls change
// something:
//
//	client, err := keywright.NewRicloud(keywright.WithMiddleware(jobs.Guard))
//
// Each attempt of a call that is made in a step of a [Runner] is refused, with
// an error that matches [ErrLate], when the step's time is over by the machine's
// monotonic clock, or by its time of day, which goes on while the machine is
// suspended, or the store's session of the job no longer keeps others out.
// Other calls pass. Give it last, so that nothing waits between it and the
// network.
func Guard(next http.RoundTripper) http.RoundTripper { return guard{next} }

type guard struct{ next http.RoundTripper }

// step is what a request's context knows of the step that it is part of.
type step struct {
	store *store.Store
	job   string
	until time.Time // with a monotonic reading; zero: it takes as long as it takes
}

type stepKey struct{}

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := late(req.Context()); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	return g.next.RoundTrip(req)
}

// late says why nothing may be sent any more.
func late(ctx context.Context) error {
	s, ok := ctx.Value(stepKey{}).(step)
	if !ok {
		return nil
	}
	if s.until.IsZero() {
		return s.held()
	}
	if over := max(time.Since(s.until), time.Now().Round(0).Sub(s.until.Round(0))); over >= 0 {
		return fmt.Errorf("%w: the step's time is over, %s ago", ErrLate, over.Round(time.Millisecond))
	}
	return s.held()
}

func (s step) held() error {
	if err := s.store.Held(s.job); err != nil {
		return fmt.Errorf("%w: %w", ErrLate, err)
	}
	return nil
}
