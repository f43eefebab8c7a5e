package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// errPooler: what a connection keeps, as prepared statements and the locks of
// package jobs, would be another's at the next transaction.
var errPooler = errors.New("store: there is a pooler in transaction mode before the PostgreSQL server: connect to the server itself, or use the pooler in session mode")

// poolerTimeout is how long a second connection through a pooler is waited for.
const poolerTimeout = 3 * time.Second

// checkPooler fails if a pooler gives the transactions of one connection
// different sessions.
func (s *Store) checkPooler(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var pid uint32
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`, pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return err
	}
	if pid == conn.Conn().PgConn().PID() {
		return nil
	}
	// A pooler, of whatever mode. If each connection has a session of its own, a
	// second one may have to wait for the first.
	short, cancel := context.WithTimeout(ctx, poolerTimeout)
	defer cancel()
	other, err := pgx.ConnectConfig(short, s.pool.Config().ConnConfig)
	if err != nil {
		return ctx.Err()
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), poolerTimeout)
		defer cancel()
		_ = other.Close(ctx)
	}()
	for range 5 {
		mark := rand.Text()
		if err := setMark(ctx, conn.Conn(), mark); err != nil {
			return err
		}
		if err := setMark(short, other, rand.Text()); err != nil {
			return ctx.Err()
		}
		var found string
		err := conn.QueryRow(ctx, `SELECT COALESCE(current_setting('keywright.mark', true), '')`, pgx.QueryExecModeSimpleProtocol).Scan(&found)
		if err != nil {
			return err
		}
		if found != mark {
			return errPooler
		}
	}
	return nil
}

// setMark marks the session that a statement has got.
func setMark(ctx context.Context, conn *pgx.Conn, mark string) error {
	_, err := conn.Exec(ctx, fmt.Sprintf(`SELECT set_config('keywright.mark', '%s', false)`, mark))
	return err
}
