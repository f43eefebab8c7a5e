//go:build !unix

package jobs

import "time"

func cpu() time.Duration { return 0 }
