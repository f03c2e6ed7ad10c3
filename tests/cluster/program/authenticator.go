package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/spf13/cobra"
	authentication "k8s.io/api/authentication/v1"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"
)

// rules is the file of --rules. It is read for each review, so that a test changes a mapping by writing the file.
type rules struct {
	// Cluster is the name that tokens must be signed for.
	Cluster   string `json:"cluster"`
	Region    string `json:"region"`
	Partition string `json:"partition"`
	// Roles maps the ARN of an IAM role, without a session, to who its sessions are in the cluster.
	Roles map[string]user `json:"roles"`
}

type user struct {
	Username string   `json:"username"`
	Groups   []string `json:"groups"`
	// RoleID, when given, is the id that the role had when its entry was made. EKS keeps it with an access entry, so a
	// role that was deleted and made anew under its old name is another one.
	RoleID string `json:"role_id"`
}

// newAuthenticatorCommand makes the API server's token webhook. Whether a token is good is decided by the verifier of
// aws-iam-authenticator alone, and its statuses are that project's; only the mapping of roles is a file of our own.
//
// The verifier asks STS through HTTPS_PROXY and trusts SSL_CERT_FILE: that is how it reaches a double of STS.
func newAuthenticatorCommand() *cobra.Command {
	var address, certificate, key, file string
	command := &cobra.Command{
		Use:           "authenticator",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: false,
		RunE: func(*cobra.Command, []string) error {
			http.HandleFunc("POST /authenticate", func(writer http.ResponseWriter, request *http.Request) {
				review(writer, request, file)
			})
			http.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
			return http.ListenAndServeTLS(address, certificate, key, nil)
		},
	}
	flags := command.Flags()
	flags.StringVar(&address, "address", "", "where to listen, host:port")
	flags.StringVar(&certificate, "tls-cert-file", "", "certificate to serve with")
	flags.StringVar(&key, "tls-private-key-file", "", "its key")
	flags.StringVar(&file, "rules", "", "JSON file with cluster, region, partition, and roles to users")
	return command
}

// review answers one TokenReview.
func review(writer http.ResponseWriter, request *http.Request, file string) {
	var review authentication.TokenReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		http.Error(writer, "not a TokenReview", http.StatusBadRequest)
		return
	}
	status, err := authenticate(review.Spec.Token, file)
	code := http.StatusOK
	if err != nil {
		// An STS that is too busy is to be asked again; everything else is a refusal.
		code = http.StatusForbidden
		if errors.As(err, new(token.STSThrottling)) {
			code = http.StatusTooManyRequests
		}
		log.Printf("denied: %v", err)
	} else {
		log.Printf("granted: %s, from %v", status.User.Username, status.User.Extra["arn"])
	}
	review.Spec, review.Status = authentication.TokenReviewSpec{}, status
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(code)
	if err := json.NewEncoder(writer).Encode(review); err != nil {
		log.Printf("answer not written: %v", err)
	}
}

func authenticate(bearer, file string) (authentication.TokenReviewStatus, error) {
	var denied authentication.TokenReviewStatus
	contents, err := os.ReadFile(file)
	if err != nil {
		return denied, err
	}
	var rules rules
	if err := json.Unmarshal(contents, &rules); err != nil {
		return denied, err
	}
	identity, err := token.NewVerifier(rules.Cluster, rules.Partition, rules.Region).Verify(bearer)
	if err != nil {
		return denied, err
	}
	mapped, known := rules.Roles[identity.CanonicalARN]
	if !known {
		return denied, fmt.Errorf("%s is mapped to nobody", identity.CanonicalARN)
	}
	if mapped.RoleID != "" && mapped.RoleID != identity.UserID {
		return denied, fmt.Errorf("%s was made anew: %s is mapped to nobody", identity.CanonicalARN, identity.UserID)
	}
	return authentication.TokenReviewStatus{Authenticated: true, User: authentication.UserInfo{
		Username: mapped.Username,
		UID:      fmt.Sprintf("aws-iam-authenticator:%s:%s", identity.AccountID, identity.UserID),
		Groups:   mapped.Groups,
		Extra: map[string]authentication.ExtraValue{
			"arn":          {identity.ARN},
			"canonicalArn": {identity.CanonicalARN},
			"sessionName":  {identity.SessionName},
			"accessKeyId":  {identity.AccessKeyID},
			"principalId":  {identity.UserID},
		},
	}}, nil
}
