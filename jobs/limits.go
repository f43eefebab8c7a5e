package jobs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keywright/keywright/jobs/store"
)

// limiter bounds steps, by provider. On PostgreSQL it does so for all workers
// together: a step in progress is an advisory lock, and the rate is a row.
type limiter struct {
	limits map[string]Limit
	store  *store.Store

	mu   sync.Mutex // of what follows, and of the connection
	busy map[string]map[int]bool
	next map[string]time.Time // SQLite
	conn *pgxpool.Conn        // PostgreSQL: holds the locks; nil: none yet, or it broke
	id   string               // of the worker
}

func newLimiter(st *store.Store, limits map[string]Limit) *limiter {
	return &limiter{limits: limits, store: st, busy: make(map[string]map[int]bool), next: make(map[string]time.Time)}
}

func (l *limiter) of(provider string) Limit {
	if limit, ok := l.limits[provider]; ok {
		return limit
	}
	return DefaultLimit
}

// lockMigrate is the class of the advisory lock that one migration has. Those of
// the places at a provider are made of its name.
const lockMigrate = store.WorkerLock - 1

func hash(text string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return int32(h.Sum32())
}

// connect returns the connection that holds the locks. The caller holds mu.
func (l *limiter) connect(ctx context.Context) (*pgxpool.Conn, error) {
	if l.conn != nil {
		if !l.conn.Conn().IsClosed() {
			return l.conn, nil
		}
		l.conn.Release()
		l.conn = nil
	}
	conn, err := l.store.Pool().Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if l.id != "" {
		// The locks of a host that is gone are free in less than a minute.
		if _, err := conn.Exec(ctx, `SELECT set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false)`); err != nil {
			conn.Release()
			return nil, fmt.Errorf("jobs: %w", err)
		}
		var ok bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, $2)`, store.WorkerLock, hash(l.id)).Scan(&ok); err != nil {
			conn.Release()
			return nil, fmt.Errorf("jobs: %w", err)
		}
		if !ok {
			conn.Release()
			return nil, fmt.Errorf("%w: %s", ErrWorkerID, l.id)
		}
	}
	l.conn = conn
	return conn, nil
}

// claimFor is how long a worker waits for its id: the server may not have
// noticed yet that the process before has ended.
const claimFor = 5 * time.Second

// claim makes a worker's id its own.
func (l *limiter) claim(ctx context.Context, id string) error {
	if l.store.Pool() == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id = id
	for began := time.Now(); ; {
		_, err := l.connect(ctx)
		if !errors.Is(err, ErrWorkerID) || time.Since(began) > claimFor {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lock takes a lock that one worker at a time has, and waits for it.
func (l *limiter) lock(ctx context.Context) (unlock func(context.Context) error, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1, 0)`, lockMigrate); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return func(ctx context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1, 0)`, lockMigrate)
		return err
	}, nil
}

// slot takes one of a provider's places; ok is false if there is none.
func (l *limiter) slot(ctx context.Context, provider string) (release func(), ok bool, err error) {
	n := l.of(provider).Concurrency
	if n == 0 {
		return func() {}, true, nil
	}
	// A query that is cancelled would close the connection, and free all locks.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	busy := l.busy[provider]
	if busy == nil {
		busy = make(map[int]bool)
		l.busy[provider] = busy
	}
	var conn *pgxpool.Conn
	if l.store.Pool() != nil {
		if conn, err = l.connect(ctx); err != nil {
			return nil, false, err
		}
	}
	class := hash("keywright:" + provider)
	for i := range n {
		if busy[i] {
			continue // a session gets a lock that it has
		}
		if conn != nil {
			var got bool
			if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, $2)`, class, i).Scan(&got); err != nil {
				return nil, false, fmt.Errorf("jobs: %w", err)
			}
			if !got {
				continue
			}
		}
		busy[i] = true
		return func() { l.free(provider, class, i, conn) }, true, nil
	}
	return nil, false, nil
}

func (l *limiter) free(provider string, class int32, i int, conn *pgxpool.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy[provider], i)
	if conn == nil || conn != l.conn {
		return // the connection broke, and the lock with it
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1, $2)`, class, i); err != nil {
		_ = conn.Conn().Close(ctx) // which frees it
	}
}

// turn waits for a provider's rate, for at most most. If that is not enough, it
// takes nothing, and wait says how long it would be.
func (l *limiter) turn(ctx context.Context, provider string, most time.Duration) (wait time.Duration, err error) {
	rate := l.of(provider).PerSecond
	if rate == 0 {
		return 0, nil
	}
	step := time.Duration(float64(time.Second) / rate)
	if l.store.Pool() != nil {
		wait, err = l.take(ctx, provider, step, most)
	} else {
		wait = l.takeHere(provider, step, most)
	}
	if err != nil || wait <= 0 || wait > most {
		return max(0, wait), err
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (l *limiter) takeHere(provider string, step, most time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	at := l.next[provider]
	if at.Before(now) {
		at = now
	}
	wait := at.Sub(now)
	if wait <= most {
		l.next[provider] = at.Add(step)
	}
	return wait
}

// take does so in the database, by its clock. A turn that is further ahead than
// any can be was given before that clock went back, and counts for nothing.
func (l *limiter) take(ctx context.Context, provider string, step, most time.Duration) (time.Duration, error) {
	const now = `(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint`
	furthest := 2 * (mostTurn + step)
	for range 3 {
		var wait int64
		row := l.store.Pool().QueryRow(ctx, `WITH t AS MATERIALIZED (SELECT `+now+` AS now)
			UPDATE keywright_rates AS k SET next = CASE WHEN k.next > t.now + $4 THEN t.now ELSE GREATEST(k.next, t.now) END + $2 FROM t
			WHERE k.provider = $1 AND (k.next <= t.now + $3 OR k.next > t.now + $4) RETURNING k.next - $2 - t.now`,
			provider, step.Microseconds(), most.Microseconds(), furthest.Microseconds())
		err := row.Scan(&wait)
		if err == nil {
			return min(time.Duration(wait)*time.Microsecond, most), nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return 0, fmt.Errorf("jobs: %w", err)
		}
		// There is no row, or it is not our turn for longer than that.
		err = l.store.Pool().QueryRow(ctx, `SELECT next - `+now+` FROM keywright_rates WHERE provider = $1`, provider).Scan(&wait)
		if err == nil {
			return max(time.Duration(wait)*time.Microsecond, most+1), nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return 0, fmt.Errorf("jobs: %w", err)
		}
		if _, err := l.store.Pool().Exec(ctx, `INSERT INTO keywright_rates (provider, next) VALUES ($1, 0) ON CONFLICT DO NOTHING`, provider); err != nil {
			return 0, fmt.Errorf("jobs: %w", err)
		}
	}
	return most + 1, nil
}

// close gives all locks up.
func (l *limiter) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = l.conn.Exec(ctx, `SELECT pg_advisory_unlock_all()`)
	err := l.conn.Conn().Close(ctx) // which does it too, a little later
	l.conn.Release()
	l.conn = nil
	return err
}
