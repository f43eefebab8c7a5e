package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright"
)

// workers is how many calls the service makes at a time.
const workers = 8

// service is a program that uses the key all the time.
type service struct {
	calls, failed atomic.Int64
	first         atomic.Pointer[error]
	cancel        context.CancelFunc
	done          sync.WaitGroup
}

// startService starts the workers. All that it takes for them to live through
// a rotation is [keywright.FileToken].
func startService(ctx context.Context, url, path string) (*service, error) {
	rc, err := keywright.NewRicloud(
		keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithTokenSource(keywright.FileToken(path)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &service{cancel: cancel}
	for range workers {
		s.done.Go(func() {
			for ctx.Err() == nil {
				_, err := rc.Key.Current(ctx)
				if ctx.Err() != nil {
					return
				}
				s.calls.Add(1)
				if err != nil {
					s.failed.Add(1)
					s.first.CompareAndSwap(nil, &err)
				}
				pause(ctx, time.Millisecond)
			}
		})
	}
	return s, nil
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// count returns how many calls were made, and how many of them failed.
func (s *service) count() (calls, failed int64) { return s.calls.Load(), s.failed.Load() }

// settle waits until every worker has had time to see what has changed.
func (s *service) settle(ctx context.Context) { pause(ctx, 1200*time.Millisecond) }

// firstError returns the error of the first call that failed.
func (s *service) firstError() error {
	if err := s.first.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends the workers.
func (s *service) stop() {
	s.cancel()
	s.done.Wait()
}
