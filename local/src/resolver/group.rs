//! Who shares the turns at the servers and at the name service switch.

use gh_net_common::turns::Group;
use hickory_proto::op::Query;

/// Who shares the turns with a question's name.
pub(super) fn group(question: &Query) -> Group {
    let name = question.name().to_lowercase();
    Group::of_name(&name.iter().collect::<Vec<_>>())
}
