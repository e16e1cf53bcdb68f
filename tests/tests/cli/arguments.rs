//! Arguments that are refused before anything is read.
use expect_test::expect;

use crate::check_refusal;

#[test]
fn bad_arguments_are_refused() {
    check_refusal(
        &[],
        &["build", "--role", "worker"],
        2,
        &expect![[r#"
        error: invalid value 'worker' for '--role <ROLE>'
          [possible values: node, master]

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &[],
        &["build"],
        2,
        &expect![[r#"
        error: the following required arguments were not provided:
          --role <ROLE>

        Usage: kscratch-image build --role <ROLE>

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &[],
        &["run", "node.img", "--forward", "80"],
        1,
        &expect![[r#"
        error: the forward `80` is not HOST:GUEST, two port numbers such as `8080:80`
    "#]],
    );
    check_refusal(
        &[],
        &["build", "--role", "node", "--quiet", "-v"],
        2,
        &expect![[r#"
        error: the argument '--quiet' cannot be used with '--verbose...'

        Usage: kscratch-image build --role <ROLE> --quiet

        For more information, try '--help'.
    "#]],
    );
}
